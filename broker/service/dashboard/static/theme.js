// Light or dark as the person chose it, before anything is painted: loaded in the head, and not deferred.

const kept = localStorage.getItem("theme");
if (kept) document.documentElement.dataset.theme = kept;

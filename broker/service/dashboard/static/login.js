// A session begins with a token: typed, or behind the # of a link, which browsers don't send to anybody.

const form = document.getElementById("login");
const refused = document.getElementById("refused");

form.addEventListener("submit", (event) => {
  event.preventDefault();
  logIn(form.elements.token.value.trim());
});

const linked = decodeURIComponent(location.hash.slice(1));
if (linked) {
  history.replaceState(null, "", location.pathname + location.search); // out of the address and the history
  logIn(linked);
}

async function logIn(token) {
  refused.hidden = true;
  let why = "The service can't be reached. Try again.";
  try {
    const answer = await fetch("/session", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    });
    if (answer.ok) {
      location.replace(wayBack());
      return;
    }
    why = (await answer.json()).detail || why;
  } catch { /* the sentence above says it */ }
  refused.textContent = why;
  refused.hidden = false;
}

function wayBack() {
  const next = new URLSearchParams(location.search).get("next") || "/";
  // Only to a page of this site.
  const target = new URL(next, location.origin);
  return target.origin === location.origin ? target.pathname + target.search : "/";
}

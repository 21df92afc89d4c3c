// What the server can't do for a page: tell how old numbers are, sort, draw, open dialogs, notice a lost link.

const LOST_AFTER = 14_000; // ms without a word; the server pushes every 2 to 5 s, and a comment after 15 s
const OLD_AFTER = 15_000; // ms after which a number isn't current any more
const body = document.body;
const dialog = document.getElementById("dialog");
let heard = performance.now();
let clockAhead = 0; // ms by which the server's clock is ahead of ours

// ---- time -----------------------------------------------------------------------------------------------

const TIME = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const MINUTE = new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
const DATE = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const EXACT = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

function age(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  return s < 172_800 ? `${Math.floor(s / 3600)} h` : `${Math.floor(s / 86_400)} days`;
}

function writeTimes(root) {
  for (const element of root.querySelectorAll("time[datetime]")) {
    const moment = new Date(element.dateTime);
    const form = element.dataset.form;
    if (form === "age") element.textContent = `${age(now() - moment)} ago`;
    else element.textContent = form === "date" ? dated(moment) : (form === "time" ? TIME : EXACT).format(moment);
    element.title = moment.toString();
  }
}

// The day only of other days: on a phone, and in a list of what happened within a minute, it is in the way.
function dated(moment) {
  if (moment.toDateString() !== new Date(now()).toDateString()) return DATE.format(moment);
  return (moment % 60_000 ? TIME : MINUTE).format(moment);
}

const now = () => Date.now() + clockAhead;

// Numbers that are old say so, and look it.
function tellAges() {
  const pulse = document.getElementById("pulse").dataset;
  for (const piece of ["account", "positions", "orders"]) {
    const at = pulse[piece] && new Date(pulse[piece]);
    const old = !at || now() - at > OLD_AFTER;
    for (const shown of document.querySelectorAll(`[data-piece=${piece}]`)) shown.classList.toggle("stale", Boolean(at) && old);
    for (const said of document.querySelectorAll(`[data-asof=${piece}]`)) {
      said.textContent = at ? `${old ? "Not current: of" : "As of"} ${TIME.format(at)}${old ? `, ${age(now() - at)} ago` : ""}` : "";
      said.classList.toggle("old", Boolean(at) && old);
    }
  }
  for (const element of document.querySelectorAll('time[data-form="age"]'))
    element.textContent = `${age(now() - new Date(element.dateTime))} ago`;
}

// ---- the live stream ------------------------------------------------------------------------------------

function tellLink() {
  const lost = performance.now() - heard > LOST_AFTER;
  body.dataset.link = lost ? "lost" : body.dataset.link === "waiting" ? "waiting" : "live";
  const notice = document.getElementById("lost");
  notice.hidden = !lost;
  if (lost) notice.querySelector("[data-says=age]").textContent = `${age(performance.now() - heard)} old`;
  if (now() / 1000 > Number(body.dataset.until)) toLogin();
}

function toLogin() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}

document.addEventListener("htmx:sse:after:message", () => {
  heard = performance.now();
  body.dataset.link = "live";
  const sent = document.getElementById("pulse").dataset.now;
  clockAhead = new Date(sent) - Date.now();
  tellLink();
});
document.addEventListener("htmx:sse:error", (event) => {
  if (event.detail.status === 401) toLogin();
});
// Nobody answered: whether what was sent has arrived isn't known.
document.addEventListener("htmx:error", (event) => {
  const asked = event.detail.ctx?.request;
  if (!asked || event.detail.ctx.sourceElement?.id === "stream") return;
  document.getElementById("unanswered").hidden = false;
});
document.addEventListener("htmx:after:request", () => { document.getElementById("unanswered").hidden = true; });
document.addEventListener("htmx:after:swap", (event) => {
  if (event.detail.ctx.target === dialog) showDialog();
  refreshShown();
});

function refreshShown() {
  writeTimes(document);
  for (const table of document.querySelectorAll("table[data-sorts]")) sort(table);
  fitOrderForm();
  followLife();
  tellAges();
}

setInterval(() => { tellLink(); tellAges(); }, 1000);

// ---- tables ---------------------------------------------------------------------------------------------

const sorting = {}; // by the table's caption: which column, and which way

function sort(table) {
  const how = sorting[table.caption.textContent];
  if (!how) return;
  const key = (row) => row.children[how.column].dataset.value ?? "";
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
    return (numbers ? x - y : x.localeCompare(y)) * how.way;
  });
  table.tBodies[0].append(...rows);
  [...table.tHead.rows[0].cells].forEach((cell, i) => {
    if (i === how.column) cell.setAttribute("aria-sort", how.way > 0 ? "ascending" : "descending");
    else cell.removeAttribute("aria-sort");
  });
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("table[data-sorts] thead button");
  if (!button) return;
  const table = button.closest("table");
  const column = Number(button.dataset.column);
  const before = sorting[table.caption.textContent];
  sorting[table.caption.textContent] = { column, way: before?.column === column ? -before.way : 1 };
  sort(table);
});

// ---- dialogs --------------------------------------------------------------------------------------------

// What was swapped in is shown; nothing swapped in means that it is done.
function showDialog() {
  if (!dialog.textContent.trim()) return dialog.close();
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("[autofocus], [aria-invalid=true], input:not([type=hidden])")?.focus();
}

dialog.addEventListener("close", () => dialog.replaceChildren());

document.addEventListener("click", (event) => {
  const does = event.target.closest("[data-does]")?.dataset.does;
  if (does === "close") setTimeout(() => dialog.close(), 0);
  if (does === "theme") changeTheme();
  if (does === "log-out") logOut();
});
document.addEventListener("change", (event) => {
  if (event.target.matches("[data-submits]")) event.target.form.submit();
  fitOrderForm();
});

// Only the prices that this kind of order has.
function fitOrderForm() {
  const kind = document.getElementById("order-order_type")?.value;
  for (const field of document.querySelectorAll("[data-for]")) field.hidden = !field.dataset.for.split(" ").includes(kind);
}

async function logOut() {
  await fetch("/session", { method: "DELETE" });
  location.assign("/login");
}

// The order whose life is open: when its row in the list has changed, it is read anew, once for each change.
let followed = "";
function followLife() {
  const life = dialog.querySelector("[data-life]");
  const version = life && document.getElementById(`order-${life.dataset.life}`)?.dataset.version;
  if (!version || version === life.dataset.version || version === followed) return;
  followed = version;
  htmx.trigger(life, "moved");
}

// ---- light and dark -------------------------------------------------------------------------------------

function changeTheme() {
  const dark = getComputedStyle(document.documentElement).colorScheme.trim() === "dark"
    || (!document.documentElement.dataset.theme && matchMedia("(prefers-color-scheme: dark)").matches);
  localStorage.setItem("theme", dark ? "light" : "dark");
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  drawPlot();
}

// ---- the plot of the account's value --------------------------------------------------------------------

const plot = document.getElementById("plot");
let span = "day";
let drawn = null;

let nextDrawing = 0;
function drawAgain(ms) {
  clearTimeout(nextDrawing);
  nextDrawing = setTimeout(drawPlot, ms);
}

async function drawPlot() {
  if (!plot) return;
  const says = document.getElementById("plot-says");
  let found;
  try {
    const answer = await fetch(`${plot.dataset.source}?span=${span}`);
    if (answer.status === 401) return toLogin();
    found = await answer.json();
    if (!answer.ok) throw new Error(found.detail);
  } catch (failure) {
    says.textContent = `The values can't be read: ${failure.message}`;
    plot.querySelector(".empty")?.replaceChildren("No values can be shown.");
    return drawAgain(5_000);
  }
  drawAgain(60_000);
  if (found.times.length < 2) {
    plot.innerHTML = "";
    plot.append(Object.assign(document.createElement("p"), { className: "empty", textContent: "No values yet: one is kept each minute." }));
    says.textContent = "";
    return;
  }
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  const axis = { stroke: colour("--soft"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") } };
  // Cents only where they tell two lines of the grid apart.
  const digits = Math.max(...found.values) - Math.min(...found.values) < 20 ? 2 : 0;
  const money = new Intl.NumberFormat(undefined, { minimumFractionDigits: digits, maximumFractionDigits: digits });
  drawn?.destroy();
  plot.replaceChildren();
  drawn = new uPlot({
    width: plot.clientWidth,
    height: 220,
    legend: { show: false },
    series: [{}, { label: "Account value", stroke: colour("--accent"), width: 2, points: { show: false } }],
    axes: [axis, { ...axis, size: digits ? 105 : 80, values: (_, values) => values.map((v) => money.format(v)) }],
  }, [found.times, found.values], plot);
  const [first, last] = [found.values[0], found.values.at(-1)];
  const change = last - first;
  says.textContent = `${change >= 0 ? "+" : "−"}${money.format(Math.abs(change))} over the ${span}, from ${money.format(first)} to ${money.format(last)}.`;
  plot.setAttribute("aria-label", `Account value: ${says.textContent}`);
}

for (const button of document.querySelectorAll("[data-span]")) {
  button.addEventListener("click", () => {
    span = button.dataset.span;
    for (const one of document.querySelectorAll("[data-span]")) one.setAttribute("aria-pressed", String(one === button));
    drawPlot();
  });
}
new ResizeObserver(() => drawn?.setSize({ width: plot.clientWidth, height: 220 })).observe(plot ?? body);

refreshShown();
drawPlot();

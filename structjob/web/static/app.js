// The frame of all pages: header, footer, keys, search, and the page of the address.

import { render } from "preact";
import { effect, signal } from "@preact/signals";
import { Glyph, Icon, Kbd, Menu, copy, footer, html, live, now, pageKeys, toggleZone, useLayoutEffect, useState, utc } from "./ui.js";
import { clock, count, present, recall, remember, sentence, spanText, zone } from "./format.js";
import { api, go, href, permanent, root, route, setQuery, up } from "./route.js";

const PAGES = {
  overview: () => import("./pages/overview.js"),
  jobs: () => (route.value.id ? import("./pages/job.js") : import("./pages/jobs.js")),
  logs: () => import("./pages/logs.js"),
  errors: () => (route.value.id ? import("./pages/error.js") : import("./pages/errors.js")),
  sessions: () => import("./pages/sessions.js"),
  storage: () => import("./pages/storage.js"),
};
const LINKS = [["overview", "", "Overview"], ["jobs", "jobs", "Jobs"], ["logs", "logs", "Logs"], ["errors", "errors", "Errors"], ["sessions", "sessions", "Sessions"], ["storage", "storage", "Storage"]];
const WINDOWS = { overview: "24h", logs: "", errors: "28d", jobs: "" };
const dialog = signal("");
const theme = signal(recall("structjob-theme") || "system");
const keysOff = signal(recall("structjob-keys") === "off");
export const errorCount = signal(0);
export const away = signal(null);
// Addresses change without a load: what is relative to the first one is made absolute.
for (const link of document.querySelectorAll("link[rel=icon]")) link.setAttribute("href", link.href);
const name = document.querySelector('meta[name="structjob-name"]')?.content || "";

effect(() => { // the document has done the same, before its first frame
  if (theme.value === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme.value;
});
function nextTheme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const order = dark ? ["system", "light", "dark"] : ["system", "dark", "light"];
  theme.value = order[(order.indexOf(theme.value) + 1) % 3];
  remember("structjob-theme", theme.value);
}

function Header() {
  const { page, query } = route.value;
  const span = query.get("window") || (query.get("since") || "").replace(/^-/, "") || WINDOWS[page];
  const log = page === "logs" || (page === "jobs" && route.value.id);
  return html`<header class="top">
    <a class="btn skip" href="#main" target="_self">Skip to the content</a>
    <a class="brand" href=${href()}><svg viewBox="0 0 16 16" aria-hidden="true"><path fill="currentColor" d="M1 2h8v3H1zM6 11h8v3H6z" /><path class="b-run" d="M4 6.5h11v3H4z" /></svg><span>structjob</span></a>
    ${name && html`<span class="db cut" title=${name}>${name}</span>`}
    <nav aria-label="pages">${LINKS.map(([key, path, label]) => html`<a key=${key} href=${href(path)} aria-current=${key === page ? "page" : undefined}>${label}${key === "errors" && html`<small>${errorCount.value > 0 ? count(errorCount.value) : ""}</small>`}</a>`)}</nav>
    <div class="only-small"><${Menu} left label=${`${LINKS.find(([key]) => key === page)?.[2] ?? "Pages"} ▾`}>${LINKS.map(([key, path, label]) => html`<a href=${href(path)}>${label}</a>`)}<//></div>
    <div class="tools">
      <button type="button" class="field open-search" onClick=${() => { dialog.value = "search"; }}>Search jobs, ids, errors <${Kbd} k=${log ? "Ctrl&#8202;K".replace("&#8202;", "\u200a") : "/"} /></button>
      <button type="button" class="icon only-small" aria-label="search" onClick=${() => { dialog.value = "search"; }}><${Icon} name="search" /></button>
      ${WINDOWS[page] !== undefined && !route.value.id && html`<span><${Menu} title="window of time" label=${html`${/^\d/.test(span) ? spanText(span) : span ? "since …" : "all time"} ▾`}>
        ${["15m", "1h", "3h", "24h", "7d", "28d"].map((one) => html`<button type="button" onClick=${() => setQuery(page === "overview" ? { window: one } : { since: `-${one}`, until: null, at: null })}>last ${spanText(one)}</button>`)}
        ${page !== "overview" && html`<button type="button" onClick=${() => setQuery({ since: null, until: null })}>all time</button>`}<//></span>`}
      <button type="button" class="plain wide" onClick=${toggleZone} title="times in UTC or in your zone (u)">${utc.value ? "UTC" : zone(Date.now(), true)}</button>
      <button type="button" class="icon" onClick=${nextTheme} aria-label=${`theme: ${theme.value}`} title=${`theme: ${theme.value} (t)`}><${Icon} name="theme" /></button>
      <${Badge} />
    </div></header>`;
}

function Badge() {
  const { kind, text, until } = away.value ? { kind: "away", text: "database unavailable" } : live.value;
  return html`<span class="live" data-kind=${kind}><i></i><span>${text}${until ? `, ${Math.max(0, Math.ceil((until - now.value) / 1000))}\u202fs` : ""}</span></span>`;
}

function Footer() {
  const { keys, facts } = footer.value;
  return html`<footer class="foot">${[...keys, ["?", "all keys"]].map(([key, what]) => html`<span key=${what}><span><${Kbd} k=${key} /></span>${what}</span>`)}<span class="facts">${facts}</span></footer>`;
}

const lazy = { keys: signal(null), search: signal(null) };
let typed = ""; // before the search has loaded: it begins with that
effect(() => {
  const wanted = dialog.value;
  if (wanted && !lazy[wanted].value) import("./dialogs.js").then((module) => { lazy.keys.value = module.Keys; lazy.search.value = module.Search; });
});

function Unavailable() {
  const { since, retry, detail, empty } = away.value;
  return html`<div class="away-bar" role="alert"><${Glyph} of="silent" /><b>The database is unavailable</b><span>since ${clock(since, false)} ${zone(since)}${empty ? "" : html`. ${sentence(detail)} Data below is from before.`}</span>
    <button type="button" class="btn" onClick=${retry}>Retry now</button></div>`;
}

function Page() {
  const { page, id } = route.value;
  const [shown, setShown] = useState({ key: "", View: null });
  const key = page + (id ? "/one" : "");
  useLayoutEffect(() => { // its script is loaded already: the page begins before the first frame
    let mine = true;
    const load = PAGES[page];
    if (!load) { setShown({ key, View: Nowhere }); return undefined; }
    load().then((module) => { if (mine) setShown({ key, View: module.default }); }, (error) => { if (mine) setShown({ key, View: () => html`<div class="state"><h1>This page could not be loaded</h1><p>${error.message}</p><button class="btn" onClick=${() => location.reload()}>Reload</button></div>` }); });
    return () => { mine = false; };
  }, [key]);
  if (!shown.View || shown.key !== key) return null; // the view of another page has no use for this id
  return html`<${shown.View} key=${shown.key + id} id=${id} query=${route.value.query} />`;
}

function Nowhere() {
  return html`<div class="state big"><h1>There is no such page</h1><p><a class="link" href=${href()}>Overview</a></p></div>`;
}

function App() {
  utc.value; // times of all pages are drawn anew when the zone changes
  return html`<${Header} />${away.value && html`<${Unavailable} />`}<main class="page grow" id="main" tabindex="-1"><${Page} /></main><${Footer} />
    ${dialog.value && lazy[dialog.value].value && html`<${lazy[dialog.value].value} key=${dialog.value} keysOff=${keysOff} typed=${typed} onClose=${() => { dialog.value = typed = ""; }} />`}`;
}

const typing = (target) => target.closest?.("input, textarea, select, [contenteditable]");
const viewer = () => document.querySelector("structjob-logs");

// A key that chooses a character of an input method means nothing else: 229 is such a key in Safari.
document.addEventListener("keydown", (event) => { if (event.isComposing || event.keyCode === 229) event.stopImmediatePropagation(); }, true);

document.addEventListener("keydown", (event) => {
  const target = event.composedPath()[0];
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") { event.preventDefault(); dialog.value = dialog.value === "search" ? "" : "search"; return; }
  const findBox = document.querySelector("input[data-find]");
  if ((event.ctrlKey || event.metaKey) && event.key === "f" && findBox && document.activeElement !== findBox) { event.preventDefault(); findBox.focus(); findBox.select(); return; }
  if (dialog.value === "search" && !lazy.search.value && event.key.length === 1 && !event.ctrlKey && !event.metaKey) { typed += event.key; event.preventDefault(); return; }
  if (dialog.value || document.querySelector("dialog[open]")) return;
  if (typing(target)) { if (event.key === "Escape") target.blur(); return; }
  if (event.defaultPrevented || (keysOff.value && event.key !== "?") || event.altKey) return;
  if (event.ctrlKey || event.metaKey) { if (viewer()?.handleKey(event)) event.preventDefault(); return; }
  if (target.closest?.("button, a, [role=treegrid]") && ["Enter", " "].includes(event.key)) return;
  const own = pageKeys.current[event.key];
  const global = {
    "?": () => { dialog.value = "keys"; }, "/": () => { if (findBox) { findBox.focus(); findBox.select(); } else dialog.value = "search"; },
    o: () => go(href()), J: () => go(href("jobs")), L: () => go(href("logs")), R: () => go(href("errors")), u: toggleZone, t: nextTheme, Escape: () => { if (route.value.id) up(); },
    y: () => { const at = viewer()?.cursor; copy(permanent({ at: at?.replace(/^f/, "") })); footer.value = { ...footer.value, facts: "link copied" }; },
  }[event.key];
  if (own && own(event) !== false) event.preventDefault();
  else if (viewer()?.handleKey(event)) event.preventDefault();
  else if (global) { event.preventDefault(); global(); }
});

/** Say whether the database answers; each page's requests go through here. */
function report({ error, retry, empty }) {
  if (error?.status === 401) { location.href = `${root.href}login?next=${encodeURIComponent(location.href.slice(root.href.length))}`; return; }
  if (error && (error.status === 503 || error.status === 504)) away.value = { since: away.value?.since ?? present(), retry, detail: error.message, empty };
  else if (!error) away.value = null;
}
globalThis.addEventListener("structjob-report", (event) => report(event.detail));

// Later than what the page itself asks: the database answers one question at a time.
setTimeout(() => api.request("errors/count", { status: "open,regressed" }).then((found) => { errorCount.value = found.count; }, () => {}), 1000);
render(html`<${App} />`, document.getElementById("app"));

// Addresses: the page, its id and its query, which is the API's.

import { signal } from "@preact/signals";
import { Api } from "./api.js";
import { present, skew, span } from "./format.js";

export const api = new Api();
export const root = api.root;
skew.ms = () => api.clockAhead;

function read() {
  const [page = "", id = ""] = location.pathname.slice(root.pathname.length).split("/");
  return { page: page || "overview", id: decodeURIComponent(id), query: new URLSearchParams(location.search) };
}

export const route = signal(read());
/** What the present entry of the history keeps: where the page's cursor stood, and the list that it was opened from. */
export const place = { current: history.state ?? {} };
addEventListener("popstate", (event) => { place.current = event.state ?? {}; route.value = read(); });

/** The address of a page; *query* is an object or URLSearchParams. */
export function href(page = "", id = "", query = {}) {
  const url = new URL(page + (id ? "/" + encodeURIComponent(id) : ""), root);
  const params = query instanceof URLSearchParams ? query : new URLSearchParams(Object.entries(query).flatMap(([key, value]) => (Array.isArray(value) ? value.map((one) => [key, one]) : value === null || value === undefined || value === "" ? [] : [[key, value]])));
  url.search = params.toString();
  return url.href;
}

export function go(to, { replace = false, back = {} } = {}) {
  if (to === location.href) return;
  const here = place.current, list = route.value.id ? here.from : { to: location.href, place: here };
  if (!replace) {
    history.replaceState(here, "");
    place.current = back;
  }
  history[replace ? "replaceState" : "pushState"](place.current, "", to);
  const next = read();
  if (!replace && next.id) place.current.from = list;
  route.value = next;
  if (!replace) scrollTo(0, 0);
}

/** From one job, error or session back to the list that it was opened from, as it stood. */
export function up() {
  const { from } = place.current;
  go(from?.to ?? href(route.value.page), { back: from?.place });
}

/** Change parameters of the present address: null removes one. */
export function setQuery(changes, options) {
  const query = new URLSearchParams(location.search);
  for (const [key, value] of Object.entries(changes)) {
    query.delete(key);
    if (value !== null && value !== undefined && value !== "") for (const one of Array.isArray(value) ? value : [value]) query.append(key, one);
  }
  const url = new URL(location.href);
  url.search = query.toString();
  go(url.href, options);
}

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a[href]");
  if (!link || event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href);
  if (url.origin !== root.origin || !url.pathname.startsWith(root.pathname) || url.pathname.startsWith(root.pathname + "api/") || url.pathname.startsWith(root.pathname + "log")&& /\/log(in|out)$/.test(url.pathname)) return;
  event.preventDefault();
  go(url.href);
});

/** The present address with its relative times made absolute, as it is copied. */
export function permanent(more = {}) {
  const url = new URL(location.href);
  for (const key of ["since", "until", "window"]) {
    const length = span(url.searchParams.get(key));
    if (!length) continue;
    url.searchParams.delete(key);
    url.searchParams.set(key === "window" ? "since" : key, new Date(present() - length).toISOString());
  }
  for (const [key, value] of Object.entries(more)) if (value) url.searchParams.set(key, value);
  return url.href;
}

/** The address of the same question to the API, for "JSON" and "curl". */
export const apiUrl = (path, params) => api.url(path, params).href;

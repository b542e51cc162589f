// What every page is made of: templates, glyphs, keys, chips, copying.

import { h } from "preact";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { signal } from "@preact/signals";
import htm from "htm";
import { present, remember, visible, zoneChoice } from "./format.js";

const safe = (child) => (typeof child === "string" ? visible(child) : Array.isArray(child) ? child.map(safe) : child);
const build = htm.bind((type, props, ...children) => h(type, props, ...children.map(safe)));
/** Templates. Text in them is shown, and does nothing: see `visible`. */
export const html = (...parts) => safe(build(...parts));
export { useEffect, useLayoutEffect, useRef, useState };
export { useMemo } from "preact/hooks";

// State glyphs, 12 by 12: each differs in outline. Strokes and fills are classes: no inline style.
const SHAPES = {
  pending: ["dim", html`<circle cx="6" cy="6" r="4.8" fill="none" stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 1.77" />`],
  running: ["accent", html`<circle cx="6" cy="6" r="5" fill="none" stroke="currentColor" stroke-width="1.5" /><path fill="currentColor" d="M6 1a5 5 0 0 1 0 10z" />`],
  completed: ["ok", html`<path fill="none" stroke="currentColor" stroke-width="1.8" d="M1.5 6.5l3 3 6-7" />`],
  failed: ["err", html`<path fill="currentColor" d="M2 0h8a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2H2a2 2 0 0 1-2-2V2a2 2 0 0 1 2-2z" /><path class="hole" d="M3.6 3.6l4.8 4.8m0-4.8L3.6 8.4" />`],
  crashed: ["err", html`<path fill="currentColor" d="M6-.5L12.5 6 6 12.5-.5 6z" /><path class="hole" d="M6.8 2.8L4.7 6.2h2.6L5.2 9.4" />`],
  cancelled: ["dim", html`<circle cx="6" cy="6" r="5" fill="none" stroke="currentColor" stroke-width="1.5" /><path stroke="currentColor" stroke-width="1.5" d="M2.6 9.4l6.8-6.8" />`],
  retrying: ["warn", html`<path fill="none" stroke="currentColor" stroke-width="1.6" d="M9.9 3.4A4.6 4.6 0 1 0 10.6 7" /><path fill="currentColor" d="M11.4.6v4.2H7.2z" />`],
  skipped: ["dim", html`<path stroke="currentColor" stroke-width="1.5" stroke-dasharray="2 1.5" d="M1 6h10" />`],
  regressed: ["err", html`<path fill="none" stroke="currentColor" stroke-width="1.6" d="M1.5 11.5V7a3 3 0 0 1 3-3h4" /><path fill="currentColor" d="M8 .8L12 4 8 7.2z" />`],
  silent: ["warn", html`<path fill="none" stroke="currentColor" stroke-width="1.4" d="M-.5 6.5h2.7l1.6-4 2 7 1.2-3M8.6 6.5h1.2M10.8 6.5H12" />`],
  slower: ["warn", html`<path fill="none" stroke="currentColor" stroke-width="1.4" d="M6 1l5.4 10H.6z" />`],
  undelivered: ["ink2", html`<path stroke="currentColor" stroke-width="1.6" d="M.5 2.5h11M.5 6h11M.5 9.5h7" />`],
};
const WORDS = { retrying: "retried", skipped: "not reached" };

/** A state as a shape with its word: hidden from sight where the word stands beside it. */
export function Glyph({ of, label }) {
  const [color, shape] = SHAPES[of] || SHAPES.skipped;
  const word = WORDS[of] || of;
  if (label === "") return html`<svg class=${"g " + color} viewBox="0 0 12 12" aria-hidden="true">${shape}</svg>`;
  return html`<svg class=${"g " + color} viewBox="0 0 12 12" role="img" aria-label=${label ?? word}><title>${label ?? word}</title>${shape}</svg>`;
}

export const Kbd = ({ k }) => html`${String(k).split(" ").map((one) => html`<kbd>${one}</kbd>`)}`;

export function Icon({ name }) {
  const d = {
    theme: html`<circle cx="7" cy="7" r="5.4" fill="none" stroke="currentColor" stroke-width="1.4" /><path fill="currentColor" d="M7 1.6a5.4 5.4 0 0 1 0 10.8z" />`,
    search: html`<circle cx="6" cy="6" r="4.3" fill="none" stroke="currentColor" stroke-width="1.4" /><path stroke="currentColor" stroke-width="1.4" d="M9.2 9.2l3.6 3.6" />`,
    copy: html`<path fill="none" stroke="currentColor" stroke-width="1.2" d="M4.5 4.5v-3h8v8h-3M1.5 4.5h8v8h-8z" />`,
  }[name];
  return html`<svg width="14" height="14" viewBox="0 0 14 14" aria-hidden="true">${d}</svg>`;
}

/** Put *text* on the clipboard, and return whether it is there; over plain http the old way is the only one. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

/** A button that says for a second whether it has copied. */
export function Copy({ text, children, className = "copy", label = "copy" }) {
  const [done, setDone] = useState("");
  const click = async () => {
    setDone((await copy(typeof text === "function" ? text() : text)) ? "Copied" : "Not copied");
    setTimeout(() => setDone(""), 1200);
  };
  return html`<button type="button" class=${className} onClick=${click} aria-label=${children ? undefined : label} title=${children ? undefined : label}>
    ${done ? (children ? done : html`<${Glyph} of=${done === "Copied" ? "completed" : "failed"} label=${done} />`) : children || html`<${Icon} name="copy" />`}</button>`;
}

/** A menu that a click outside, a choice, or Esc closes. */
export function Menu({ label, title, children, className = "plain", left }) {
  const [open, setOpen] = useState(false);
  const box = useRef(null);
  useEffect(() => {
    if (!open) return undefined;
    const outside = (event) => { if (!box.current?.contains(event.target)) setOpen(false); };
    const key = (event) => { if (event.key === "Escape") { event.stopPropagation(); setOpen(false); box.current?.firstElementChild?.focus(); } };
    document.addEventListener("pointerdown", outside);
    document.addEventListener("keydown", key, true);
    return () => { document.removeEventListener("pointerdown", outside); document.removeEventListener("keydown", key, true); };
  }, [open]);
  return html`<div class=${"menu" + (left ? " left" : "")} ref=${box}>
    <button type="button" class=${className} aria-expanded=${open} aria-haspopup="true" aria-label=${label === "⋯" ? title : undefined} title=${title} onClick=${() => setOpen(!open)}>${label}</button>
    ${open && html`<div class="list" onClick=${(event) => { if (event.target.closest("a, button")) setOpen(false); }}>${children}</div>`}</div>`;
}

/** One filter: key, operator, value; a click on it edits or pauses it, × removes it. */
export function Chip({ name, op = "=", value, onRemove, onClick, kind = "", off, title }) {
  return html`<span class=${`chip ${kind} ${off ? "off" : ""}`}>
    <button type="button" class="cut" onClick=${onClick} title=${title}><span>${name}</span><i>${op}</i><b>${value}</b></button>
    <button type="button" onClick=${onRemove} aria-label=${`remove the filter ${name} ${op} ${value}`}>×</button></span>`;
}

/** Exclusive choices with their counts. */
export function Segments({ items, value, onChoose, label }) {
  return html`<div class="segs" role="group" aria-label=${label}>${items.map(([key, content, n]) => html`
    <button type="button" key=${key} aria-pressed=${String(key === value)} onClick=${() => onChoose(key)}>${content}${n != null && html`<b>${n}</b>`}</button>`)}</div>`;
}

/** A dialog in the top layer; Esc and a click beside it close it. */
export function Dialog({ className, onClose, label, children }) {
  const box = useRef(null);
  useLayoutEffect(() => { if (!box.current.open) { box.current.showModal(); if (!box.current.querySelector("[autofocus], input")) box.current.focus(); } }, []); // not on a button that Enter would press
  return html`<dialog ref=${box} tabindex="-1" class=${className} aria-label=${label} onClose=${onClose}
    onClick=${(event) => { if (event.target === box.current) box.current.close(); }}>${children}</dialog>`;
}

/** A bar of progress; its width is set as a property, which the page's policy allows. */
export function Progress({ percent, width }) {
  return html`<span class="progress" role="progressbar" aria-valuenow=${Math.round(percent)} aria-valuemin="0" aria-valuemax="100" aria-label="progress"
    style=${width ? { width } : undefined}><i style=${{ width: `${Math.max(0, Math.min(100, percent))}%` }}></i></span>`;
}

/** Tell the frame of the pages whether the server answers: *error* is null then. *empty*: nothing is shown that was read before. */
export const answered = (error, retry, empty) => dispatchEvent(new CustomEvent("structjob-report", { detail: { error, retry, empty } }));

/** Milliseconds until what failed, but may not fail for long, is asked again. */
export const AGAIN = 5000;

/** Load data for a page: old data stay until new ones are there. */
export function useData(load, keys) {
  const [state, setState] = useState({ data: null, error: null, loading: true, since: 0 });
  const [again, setAgain] = useState(0);
  const latest = useRef(0), had = useRef(false);
  useLayoutEffect(() => { // an effect would wait for the next frame
    const turn = ++latest.current;
    const abort = new AbortController();
    const began = performance.now();
    const reload = () => setAgain((n) => n + 1);
    let soon = 0;
    const slow = setTimeout(() => setState((old) => ({ ...old, loading: true, slow: true })), 300);
    Promise.resolve(load(abort.signal)).then(
      (data) => { if (turn !== latest.current) return; had.current = true; answered(null); setState({ data, error: null, loading: false, took: performance.now() - began }); },
      (error) => {
        if (turn !== latest.current || error.name === "AbortError") return;
        answered(error, reload, !had.current);
        setState((old) => ({ ...old, error, loading: false, slow: false }));
        if (!error.final) soon = setInterval(() => { if (!document.hidden) reload(); }, AGAIN);
      },
    ).finally(() => clearTimeout(slow));
    return () => { clearTimeout(slow); clearInterval(soon); abort.abort(); };
  }, [...keys, again]);
  return { ...state, reload: () => setAgain((n) => n + 1), set: (data) => setState((old) => ({ ...old, data })) };
}

/** Whether times are in UTC, for what is drawn anew when that changes. */
export const utc = signal(zoneChoice.utc);
export function toggleZone() {
  zoneChoice.utc = utc.value = !utc.value;
  remember("structjob-utc", utc.value ? "1" : "0");
  document.querySelectorAll("structjob-logs").forEach((one) => one.rezone());
}

/** The present, moved on once a second (with reduced motion, every ten): what runs is drawn by it. */
export const now = signal(present());
const still = matchMedia("(prefers-reduced-motion: reduce)");
let ticks = 0;
setInterval(() => {
  ticks += 1;
  if (!document.hidden && (!still.matches || ticks % 10 === 0)) now.value = present();
}, 1000);

/** What the footer and the badge show; each page sets it. */
export const footer = signal({ keys: [], facts: "" });
export const live = signal({ kind: "waiting", text: "waiting" });
/** Have the badge show how a stream is: its detail of `structjob-state`. */
export function showState({ state, transport, retry, paused }) {
  if (state === "ended") live.value = { kind: "ended", text: "ended" };
  else if (state === "reconnecting") live.value = { kind: "away", text: "reconnecting", until: present() + (retry ?? 0) };
  else live.value = { kind: paused ? "paused" : "live", text: `${paused ? "paused" : "live"} · ${transport ?? ""}` };
}
/** What the keys of the present page do: key → function. */
export const pageKeys = { current: {} };

export function usePage({ title, keys = [], facts = "", on = {} }) {
  useEffect(() => { document.title = title ? `${title} · structjob` : "structjob"; }, [title]);
  useEffect(() => { footer.value = { keys, facts }; }, [facts, keys.length]);
  pageKeys.current = on;
}

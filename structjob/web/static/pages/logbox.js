// A viewer with its bar: filters as chips, counts of the database, find.

import { Chip, answered, copy, html, showState, useEffect, useLayoutEffect, useRef, useState } from "../ui.js";
import { count } from "../format.js";
import { api, permanent, setQuery } from "../route.js";
import { AddFilter } from "./filters.js";
import "../logs.js";

export const NOT_FILTERS = ["at", "hl", "view", "order", "live", "cursor", "limit", "cols", "off", "window", "from"];
const NAMES = ["level", "levels", "logger", "step", "operation", "stream", "kind", "type", "category", "project", "correlation_id", "trace_id", "session_id", "fingerprint", "job", "q"];
const LEVELS = ["debug", "info", "success", "warning", "error", "critical"];

/** Parameters of GET /logs that an address holds; *leave* are names that are something else. */
export function filterOf(query, leave = new Set(NOT_FILTERS)) {
  const off = new Set(query.getAll("off"));
  const out = {};
  for (const [name, value] of query) {
    if (leave.has(name) || off.has(`${name}=${value}`)) continue;
    out[name] = out[name] === undefined ? value : [].concat(out[name], value);
  }
  return out;
}

export const CHIP_OP = { level: "≥", q: "~", since: "≥", until: "<" };

/** The chips of an address's filters: × removes one, a click turns it off and on. */
export function FilterChips({ query, hidden }) {
  const off = new Set(query.getAll("off"));
  const chips = [...query].filter(([name]) => !NOT_FILTERS.includes(name) && !hidden.has(name));
  const remove = (name, value) => {
    const rest = query.getAll(name).filter((one) => one !== value);
    setQuery({ [name]: rest, off: [...off].filter((one) => one !== `${name}=${value}`) });
  };
  const flip = (name, value) => {
    const key = `${name}=${value}`;
    const out = new Set(off);
    if (!out.delete(key)) out.add(key);
    setQuery({ off: [...out] });
  };
  return html`${chips.map(([name, value]) => html`<${Chip} key=${name + value} name=${name.replace(/^attr\./, "")} op=${CHIP_OP[name] ?? "="} value=${value} off=${off.has(`${name}=${value}`)} title="turn off or on" onRemove=${() => remove(name, value)} onClick=${() => flip(name, value)} />`)}`;
}

/** The field that marks a text in the lines, counts it in the database, and goes from hit to hit. */
export function Finder({ query, filterKey }) {
  const [matches, setMatches] = useState(null);
  const [text, setText] = useState(query.get("hl") ?? "");
  const viewer = () => document.querySelector("structjob-logs");
  useEffect(() => {
    const counted = ({ detail }) => { if ("matches" in detail) setMatches(detail.matches); };
    document.addEventListener("structjob-counts", counted);
    return () => document.removeEventListener("structjob-counts", counted);
  }, []);
  useEffect(() => {
    const timer = setTimeout(() => { viewer()?.find(text); setQuery({ hl: text || null }, { replace: true }); }, 200);
    return () => clearTimeout(timer);
  }, [text, filterKey]);
  const onKey = (event) => {
    if (event.key === "Enter") {
      event.preventDefault();
      if (event.ctrlKey || event.metaKey) { setQuery({ q: text, hl: null }); setText(""); } else viewer()?.nextMatch(event.shiftKey);
    } else if (event.key === "Escape") { event.stopPropagation(); setText(""); event.target.blur(); }
  };
  return html`<label class="field"><span class="visually-hidden">find in the lines</span><input data-find type="text" placeholder="Find" value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${onKey} autocomplete="off" spellcheck=${false} />
    ${text ? html`<span class="n" title=${matches?.error?.message}>${matches?.error ? "not counted" : matches ? count(matches.count ?? matches) : ""}</span>` : html`<kbd>/</kbd>`}</label>`;
}

/** Milliseconds between two changes of the numbers above the lines. */
const COUNT_EVERY = 200;

export function LogBox({ boxRef, filter, follow, query, hidden, chips = [], start, columns, channels = ["logs"], bar = true, onOpen, onCounts, head, startKey = "", end = false, onContext }) {
  const box = useRef(null);
  const [counts, setCounts] = useState({});
  const [adding, setAdding] = useState(false);
  const [context, setContext] = useState(false);
  const key = JSON.stringify(filter);
  // Before the viewer's first frame: it would read the lines of all jobs otherwise.
  useLayoutEffect(() => {
    const node = box.current;
    if (boxRef) boxRef.current = node;
    node.client = api;
    node.channels = channels;
    node.atEnd = end;
    let came = {}, adding = 0; // counted in batches: while lines pour in, each message would draw the page
    const add = () => { const more = came; came = {}; adding = 0; setCounts((old) => { const out = { ...old }; for (const [level, n] of Object.entries(more)) out[level] = (out[level] ?? 0) + n; return out; }); };
    const on = {
      "structjob-state": ({ detail }) => { if (detail.state !== "ended") showState(detail); }, // the page says what it shows
      "structjob-counts": ({ detail }) => {
        if ("loaded" in detail) answered(null);
        if (detail.histogram) { came = {}; const sum = {}; for (const one of detail.histogram.bars) for (const [level, n] of Object.entries(one.counts)) sum[level] = (sum[level] ?? 0) + n; setCounts({ ...sum, partial: detail.histogram.partial }); onCounts?.(detail.histogram); }
      },
      "structjob-line": ({ detail }) => { for (const line of detail.lines) came[line.level] = (came[line.level] ?? 0) + 1; adding ||= setTimeout(add, COUNT_EVERY); },
      "structjob-filter": ({ detail }) => {
        if (detail.act === "column") { const cols = new Set(query.get("cols")?.split(",").filter(Boolean)); const name = `attr.${detail.name}`; if (!cols.delete(name)) cols.add(name); setQuery({ cols: [...cols].join(",") }); return; }
        const value = typeof detail.value === "string" ? detail.value : JSON.stringify(detail.value);
        if (detail.act === "filter") setQuery({ [detail.field ? detail.name : `attr.${detail.name}`]: value });
        else if (detail.field && detail.name === "level") setQuery({ level: null, levels: LEVELS.filter((one) => one !== value) });
      },
      "structjob-link": ({ detail }) => { copy(permanent({ at: detail.id })); },
      "structjob-context": ({ detail }) => { setContext(detail.on); onContext?.(detail.on); },
      "structjob-open": (event) => { if (onOpen) { event.preventDefault(); onOpen(event.detail.line); } },
      "structjob-error": ({ detail }) => { answered(detail, () => node.reload(), !node.lines.length); },
      "structjob-cursor": (event) => { if (onOpen && node.view.inPanel && event.detail.line) onOpen(event.detail.line, true); },
    };
    for (const [name, run] of Object.entries(on)) node.addEventListener(name, run);
    return () => { for (const [name, run] of Object.entries(on)) node.removeEventListener(name, run); if (adding) { clearTimeout(adding); add(); } };
  }, [query.toString(), Boolean(onOpen)]);
  useLayoutEffect(() => {
    const node = box.current;
    node.toggleAttribute("follow", Boolean(follow));
    if (start) node.startAt(start);
    node.filter = filter;
    node.begin();
    setContext(false);
  }, [key, startKey]);
  useEffect(() => { box.current.toggleAttribute("follow", Boolean(follow)); }, [follow]);
  useEffect(() => { box.current.setAttribute("columns", columns.join(" ")); }, [columns.join(" ")]);
  useEffect(() => { box.current.view.inPanel = Boolean(onOpen); }, [Boolean(onOpen)]);
  const total = Object.entries(counts).reduce((n, [name, one]) => (name === "partial" ? n : n + one), 0);
  const errors = (counts.error ?? 0) + (counts.critical ?? 0);
  return html`${bar && html`<div class="logbar">${context ? html`<span>in context, all filters off</span><button type="button" class="btn" onClick=${() => box.current.context()}>Back to the filters <kbd>c</kbd></button>`
      : html`${chips}<${FilterChips} query=${query} hidden=${new Set([...hidden, "step", "attempt"])} /><${AddFilter} open=${adding} setOpen=${setAdding} fields=${NAMES.filter((one) => !hidden.has(one))} extra="attr." values=${{ level: LEVELS, stream: ["stdout", "stderr"], type: ["system", "job", "task"] }} onAdd=${(name, value) => setQuery({ [name]: value, at: null })} />`}
      <span class="counts">${total > 0 && html`<b>${count(total)}</b> ${total === 1 ? "line" : "lines"}${counts.partial ? " so far" : ""}${errors > 0 && html` · <button type="button" class="link err" onClick=${() => setQuery({ level: "error" })}>${count(errors)} ${errors === 1 ? "error" : "errors"}</button>`}${counts.warning > 0 && html` · <button type="button" class="link warn" onClick=${() => setQuery({ level: "warning" })}>${count(counts.warning)} ${counts.warning === 1 ? "warning" : "warnings"}</button>`}`}</span>
      ${errors > 0 && html`<button type="button" class="btn only-small" onClick=${() => box.current.nextError()}>Next error</button>`}<${Finder} query=${query} filterKey=${key} /></div>`}
    <structjob-logs ref=${box} head=${head ? "" : undefined}></structjob-logs>`;
}

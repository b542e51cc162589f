// All lines: filters, a histogram to choose a stretch of time from, the viewer, the chosen line.

import { Copy, Menu, html, live, useEffect, useMemo, useRef, useState, usePage } from "../ui.js";
import { ago, clock, count, duration, full, hour, plural, span, zone } from "../format.js";
import { api, apiUrl, href, permanent, setQuery } from "../route.js";
import { Histogram } from "../charts.js";
import { errorOf, shown } from "../logs-text.js";
import { AddFilter } from "./filters.js";
import { CurlItem } from "./common.js";
import { FirstRun } from "./lists.js";
import { FilterChips, Finder, LogBox, NOT_FILTERS, filterOf } from "./logbox.js";
import { Traceback } from "./traceback.js";

const LEVELS = ["debug", "info", "success", "warning", "error", "critical"];
const FIELDS = ["level", "levels", "logger", "operation", "step", "job", "kind", "stream", "type", "category", "project", "correlation_id", "trace_id", "session_id", "fingerprint", "q"];
const LIVE = { live: "1", until: null, at: null };
const sum = (buckets, test = () => true) => buckets.reduce((n, one) => n + Object.entries(one.counts).reduce((m, [level, k]) => m + (test(level) ? k : 0), 0), 0);

export default function Logs({ query }) {
  const [line, setLine] = useState(null);
  const [adding, setAdding] = useState(false);
  const [histogram, setHistogram] = useState(null);
  const [hidden, setHidden] = useState(null);
  const [brush, setBrush] = useState(null);
  const viewer = useRef(null);
  const until = query.get("until");
  const follow = query.get("live") === "1" && !until;
  const base = useMemo(() => filterOf(query), [query.toString()]);
  const filter = useMemo(() => (brush ? { ...base, since: new Date(brush[0]).toISOString(), until: new Date(brush[1]).toISOString() } : base), [base, brush]);
  const baseKey = JSON.stringify(base);
  const [took, setTook] = useState(null);
  const [context, setContext] = useState(false);
  useEffect(() => {
    const abort = new AbortController();
    const began = performance.now();
    setHidden(null);
    api.countLogsByTime({ ...base, buckets: 180 }, abort.signal).then(async (found) => {
      setHistogram(found);
      setTook(performance.now() - began);
      if (!sum(found.bars)) {
        const { since, until: end } = base;
        const rest = await api.countLogsByTime({ ...(since ? { since } : {}), ...(end ? { until: end } : {}), buckets: 180 }, abort.signal);
        setHidden(rest);
      }
    }).catch(() => {});
    return () => abort.abort();
  }, [baseKey]);
  useEffect(() => { setBrush(null); }, [baseKey]);
  const buckets = histogram?.bars ?? [];
  const total = sum(buckets), errors = sum(buckets, (one) => one === "error" || one === "critical"), warnings = sum(buckets, (one) => one === "warning");
  const inside = brush && buckets.filter((one) => Date.parse(one.since) < brush[1] && Date.parse(one.until) > brush[0]);
  const cols = (query.get("cols") ?? "").split(",").filter(Boolean);
  const chips = [...query].filter(([name]) => !NOT_FILTERS.includes(name) && name !== "since" && name !== "until");
  const none = histogram && total === 0 && !follow;
  const apply = () => { if (brush) setQuery({ since: new Date(brush[0]).toISOString(), until: new Date(brush[1]).toISOString(), at: null }); };
  usePage({
    title: "Logs",
    keys: [["j k", "line"], ["e E", "error"], ["n N", "match"], ["c", "context"], ["w", "wrap"], ["u", "UTC"], ["r", follow ? "resume" : "live"], ["f", "filter"]],
    facts: histogram ? `${histogram.partial ? `counted so far, back to ${histogram.counted_since ? hour(histogram.counted_since) : "…"}` : "counted in full"}${took ? ` · ${count(took)}\u202fms` : ""}` : "",
    on: {
      f: () => setAdding(true), r: () => { if (follow) return false; setQuery(LIVE); return true; },
      Backspace: () => { const last = chips.at(-1); if (!last) return false; setQuery({ [last[0]]: query.getAll(last[0]).slice(0, -1) }); return true; },
      Escape: (event) => {
        if (event.shiftKey) { setQuery(Object.fromEntries(chips.map(([name]) => [name, null]))); return true; }
        if (line) { setLine(null); return true; }
        if (brush) { setBrush(null); return true; }
        return viewer.current?.handleKey(event) ?? false;
      },
      Enter: () => { const id = viewer.current?.cursor; if (!id || id.startsWith("f")) return false; setLine(line && `${line.session_id}:${line.seq}` === id ? null : viewer.current.lineOf(id)); return true; },
    },
  });
  useEffect(() => { if (!follow) live.value = { kind: "ended", text: "not live" }; }, [follow]);
  return html`<div class="bar">${context ? html`<span>in context, all filters off</span><button type="button" class="btn" onClick=${() => viewer.current.context()}>Back to the filters <kbd>c</kbd></button>` : null}<${FilterChips} query=${query} hidden=${new Set(["since", "until"])} /><${AddFilter} open=${adding} setOpen=${setAdding} fields=${FIELDS} extra="attr." values=${{ level: LEVELS, stream: ["stdout", "stderr"], type: ["system", "job", "task"] }} onAdd=${(name, value) => setQuery({ [name]: value, at: null })} /><span class="grow"></span>
      <${Finder} query=${query} filterKey=${JSON.stringify(filter)} /><button type="button" class="btn toggle" aria-pressed=${String(follow)} title="show new lines as they are stored" onClick=${() => setQuery(follow ? { live: null } : LIVE)}>Live <kbd>r</kbd></button>
      <${Menu} className="btn" label="Download" title="download all lines that match"><a href=${apiUrl("logs.txt", filter)} download>As text</a><a href=${apiUrl("logs.jsonl", filter)} download>As JSON lines</a></${Menu}><${Menu} className="btn quiet" label="⋯" title="more"><a href=${apiUrl("logs", filter)} target="_blank" rel="noreferrer">JSON</a><${CurlItem} path="logs" params=${filter} /></${Menu}></div>
    <div class="histo"><div class="title">${histogram && html`<span><b>${count(total)}</b> ${hidden?.bars.length ? `of ${count(sum(hidden.bars))} ` : ""}${total === 1 ? "line" : "lines"}${histogram.partial ? " so far" : ""}</span>`}${errors > 0 && html`<button type="button" class="link err" onClick=${() => setQuery({ level: "error" })}>${plural(errors, "error")}</button>`}${warnings > 0 && html`<button type="button" class="link warn" onClick=${() => setQuery({ level: "warning" })}>${plural(warnings, "warning")}</button>`}
        ${buckets.length > 0 && html`<span class="dim wide">1 bar = ${duration(Date.parse(buckets[0].until) - Date.parse(buckets[0].since)).replace(/ 00.\w$/, "")}</span>`}${hidden?.bars.length > 0 && html`<span class="dim">gray bars: lines hidden by the filters</span>`}<span class="grow"></span>
        ${brush && html`<span class="accent">${hour(brush[0])} – ${hour(brush[1])} · ${plural(sum(inside), "line")}</span><button type="button" class="btn quiet" onClick=${apply}>Zoom in</button><button type="button" class="btn quiet" onClick=${() => setBrush(null)}>Clear <kbd>Esc</kbd></button>`}</div>
      <${Histogram} data=${histogram} hidden=${hidden} range=${brush} onRange=${setBrush} label=${`${count(total)} lines, ${count(errors)} errors, ${count(warnings)} warnings`} /></div>
    ${none ? html`<${Empty} query=${query} base=${base} chips=${chips} hidden=${hidden} />` : html`<div class="split"><div class="main"><${LogBox} boxRef=${viewer} query=${query} filter=${filter} follow=${follow} bar=${false} onContext=${setContext} end=${true} hidden=${new Set(FIELDS)} columns=${["job", "step", ...cols]} head=${true} start=${query.get("at") ? { at: query.get("at") } : null} startKey=${query.get("at") ?? ""} onOpen=${(found, moved) => { if (!moved || line) setLine(found); }} end=${true} compact=${true} /></div>
      ${line && html`<${LinePanel} line=${line} onClose=${() => setLine(null)} viewer=${viewer} />`}</div>`}`;
}

function LinePanel({ line, onClose, viewer }) {
  const id = `${line.session_id}:${line.seq}`;
  const error = errorOf(line);
  const flat = [];
  const visit = (value, prefix) => { for (const [key, one] of Object.entries(value ?? {})) { if (!prefix && key === "exception" && error) continue; if (one && typeof one === "object" && !Array.isArray(one)) visit(one, `${prefix}${key}.`); else flat.push([prefix + key, one]); } };
  visit(line.attrs, "");
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  return html`<aside class="panel" aria-label="the chosen line"><div class="panel-head"><span class=${`lv ${line.level}`}>${line.level}</span><span class="mono" title=${full(line.ts)}>${clock(line.ts)} ${zone(line.ts)}</span><span class="grow"></span>
      <button type="button" class="btn quiet" onClick=${() => viewer.current.context(id)}>Context <kbd>c</kbd></button><${Copy} className="btn quiet" text=${() => permanent({ at: id })}>Link <kbd>y</kbd><//><button type="button" class="icon" aria-label="close" onClick=${onClose}>×</button></div>
    <section><p class="msg"><${Shown} text=${line.message} /></p><p class="dim">${ago(line.ts)}${line.operation ? html` · <a class="link" href=${href("jobs", line.job_id, { at: id })}>${line.operation}${line.step ? ` › ${line.step}` : ""}</a>` : " · outside any job"}${line.attempt > 1 ? `, attempt ${line.attempt}` : ""}</p></section>
    ${flat.length > 0 && html`<section><h2>Attributes<span>${count(flat.length)}</span></h2><dl class="kv acts-kv">${flat.map(([key, value]) => html`<dt title=${key}>${key}</dt><dd class="mono"><${Shown} text=${text(value)} /></dd><span class="do"><button type="button" class="link" onClick=${() => setQuery({ [`attr.${key}`]: text(value) })}>filter</button> <button type="button" class="link" onClick=${() => { const cols = new Set((new URLSearchParams(location.search).get("cols") ?? "").split(",").filter(Boolean)); if (!cols.delete(`attr.${key}`)) cols.add(`attr.${key}`); setQuery({ cols: [...cols].join(",") }); }}>column</button></span>`)}</dl></section>`}
    ${error && html`<section><h2>Error</h2><div class="tb flush"><${Traceback} text=${error.traceback} mode="yours" /></div>${line.fingerprint && html`<p><a class="link" href=${href("errors", line.fingerprint)}>all of this error</a></p>`}</section>`}
    <section><h2>Identity</h2><dl class="kv">${[["line", id], ["job", line.job_id && html`<a class="link" href=${href("jobs", line.job_id)}>${line.job_id}</a>`], ["session", html`<a class="link" href=${href("sessions", line.session_id)}>${line.session_id}</a>`], ["logger", line.logger], ["kind", line.kind], ["stream", line.stream], ["correlation", line.correlation_id && html`<a class="link" href=${href("logs", "", { correlation_id: line.correlation_id })}>${line.correlation_id}</a>`], ["trace", line.trace_id], ["project", line.project], ["stored", line.stored_at && `+${duration(Math.max(0, new Date(line.stored_at) - new Date(line.ts)))}`]].filter(([, value]) => value).map(([name, value]) => html`<dt>${name}</dt><dd class="mono">${value}</dd>`)}</dl></section></aside>`;
}

function Shown({ text }) {
  const box = useRef(null);
  useEffect(() => { box.current.replaceChildren(shown(text ?? "", "", true)); }, [text]);
  return html`<span ref=${box}></span>`;
}

function Empty({ query, base, chips, hidden }) {
  const whole = hidden ? sum(hidden.bars) : null;
  const length = query.get("since");
  if (whole === 0 && !chips.length && !length) return html`<${FirstRun} what="lines" />`;
  return html`<div class="split well"><div class="state"><h1>No line matches${chips.length > 1 ? " all of these" : ""}</h1><p>${whole ? `${plural(whole, "line")} ${whole === 1 ? "is" : "are"} in this window.${chips.length ? " What each filter hides on its own:" : ""}` : whole === 0 ? `Without the filters there is no line ${length || query.get("until") ? "in this time" : "in this database"} either.` : ""}</p>
    ${chips.map(([name, value]) => html`<${Hides} key=${name + value} name=${name} value=${value} query=${query} base=${base} />`)}
    ${length && html`<div class="hides"><span class="ink2">${span(length) ? `last ${length.replace("-", "")}` : `since ${length}`}</span><span class="ink2"></span><button type="button" class="btn" onClick=${() => setQuery({ since: null, until: null })}>Search all</button></div>`}
    <p class="after"><button type="button" class="btn" onClick=${() => setQuery(Object.fromEntries(chips.map(([name]) => [name, null])))}>Clear all filters <kbd>⇧</kbd><kbd>Esc</kbd></button> <button type="button" class="btn quiet" onClick=${() => setQuery(LIVE)}>Watch for the first match <kbd>r</kbd></button></p></div></div>`;
}

function Hides({ name, value, query, base }) {
  const [n, setN] = useState(null);
  useEffect(() => {
    let mine = true;
    const rest = { ...base };
    delete rest[name];
    api.countLogs(rest).then((found) => { if (mine) setN(found.count); }, () => {});
    return () => { mine = false; };
  }, [query.toString()]);
  const remove = () => setQuery({ [name]: query.getAll(name).filter((one) => one !== value) });
  return html`<div class="hides"><span class="chip"><button type="button" class="cut"><span>${name.replace(/^attr\./, "")}</span><i>${name === "level" ? "≥" : name === "q" ? "~" : "="}</i><b>${value}</b></button><button type="button" aria-label="remove" onClick=${remove}>×</button></span><span class="ink2">${n === null ? "" : n ? html`hides <b>${count(n)}</b>` : "hides none: another filter does as well"}</span><button type="button" class="btn" onClick=${remove}>Remove</button></div>`;
}

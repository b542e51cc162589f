// The list of jobs: families, running rows live, nothing moves under the pointer.

import { signal } from "@preact/signals";
import { Chip, Glyph, Menu, Progress, Segments, answered, html, useData, useEffect, useMemo, useRef, useState, usePage } from "../ui.js";
import { brief, count, dot, full, percent, plural, recall, remember, spent, when } from "../format.js";
import { api, apiUrl, go, href, setQuery } from "../route.js";
import { AddFilter } from "./filters.js";
import { CurlItem, Failed, took } from "./common.js";
import { FirstRun, useChanges, usePlace } from "./lists.js";

/** A duration beside the usual one: the tick always stands at 36 px, the median. */
function Usual({ ms, usual, status }) {
  if (ms == null) return null;
  const width = usual ? Math.min(66, (36 * ms) / usual) : 0;
  const kind = status === "running" ? "b-run" : status === "failed" || status === "crashed" ? "b-bad" : "b-off";
  return html`<svg width="76" height="14" viewBox="0 0 76 14" role="img" aria-label=${usual ? `${(ms / usual).toFixed(1)} times the usual duration` : "no usual duration yet"}>
    ${usual && html`<rect class=${kind} x="0" y="5" width=${Math.max(1.5, width)} height="4" />
    ${ms > 2 * usual - 12 && ms > 1.83 * usual && html`<path d="M69 4l3 3-3 3" fill="none" class="s-off" stroke-width="1.2" />`}
    <path d="M36.5 1v12" stroke="currentColor" stroke-width="1.5" />`}</svg>`;
}

const Family = ({ children: kids }) => html`<span class="family" role="img"
  aria-label=${kids.map((one) => one.status).join(", ")}>${kids.slice(0, 10).map((one) => html`<i class=${one.status}></i>`)}</span>`;

const capital = (word) => word[0].toUpperCase() + word.slice(1);
const STATES = ["running", "failed", "crashed", "completed", "cancelled", "pending"];
const FIELDS = ["operation", "status", "job_type", "owner", "category", "project", "external_job_id", "context_id", "correlation_id", "q", "since", "until"];
const LIMIT = 50, AT_ONCE = 100, COUNTED = 10_000, LATE = 60_000;

function params(query) {
  // What is unknown is asked for as well: the server says what is wrong, and shows nothing for it.
  const out = Object.fromEntries([...query].filter(([key]) => !["root", "window", "limit"].includes(key)));
  const root = query.get("root") ?? (query.get("q") || query.get("operation") || query.get("status") ? "0" : "1");
  return { ...out, ...(root === "1" ? { root: 1 } : {}), limit: LIMIT };
}

async function load(query, signal) {
  const page = await api.listJobs(params(query), signal);
  const oldest = page.items.reduce((least, job) => (job.created_at < least ? job.created_at : least), page.items[0]?.created_at ?? "");
  const quiet = (promise, other) => promise.catch(() => other);
  const [kids, usual, sessions] = await Promise.all([
    page.items.length ? quiet(api.listJobs({ since: oldest, order: "asc", limit: 2000 }, signal), { items: [] }) : { items: [] },
    quiet(api.request("statistics/operations", { since: "-28d", limit: 500 }, { signal }), []),
    quiet(api.listSessions({ limit: 200 }, signal), []),
  ]);
  const families = new Map();
  for (const job of kids.items) if (job.parent_job_id) families.set(job.parent_job_id, [...(families.get(job.parent_job_id) ?? []), job]);
  return {
    page, families,
    usual: new Map(usual.filter((one) => one.completed >= 5).map((one) => [one.operation, one.p50_ms])), // as `jobs.estimate` has it
    hosts: new Map(sessions.map((one) => [one.session_id, one.host])),
  };
}

/** How many jobs each choice of a status would list. It comes after the list, and anew while jobs change. */
function useCounts(query, data) {
  const [counts, setCounts] = useState({});
  const called = useRef(0);
  const look = async () => {
    const mine = called.current = Date.now();
    const { limit, status, cursor, sort, order, ...filter } = params(new URLSearchParams([...query, ["status", "running"]]));
    const found = filter.slower ? {} : await api.request("statistics/jobs", filter).catch(() => ({})); // too long to count: none
    if (mine === called.current) setCounts(found);
  };
  useEffect(() => { if (data) look(); }, [data?.usual]); // of another load: rows that change in place keep it
  return { counts, refresh: () => { if (Date.now() - called.current > COUNTED) look(); } };
}

/** The numbers of lines, warnings and errors of the jobs that are shown. They come after the list, and anew while they change. */
function useLines(rows, data, wanted) {
  const [lines, setLines] = useState(new Map());
  const asked = useRef(new Map()), calls = useRef(0), called = useRef(0), loaded = useRef(null), latest = useRef(null), timer = useRef(0);
  // The numbers of a job change while it or a child job runs, and until its last events are stored, which may be after its end.
  const family = (job) => [job, ...(data.families.get(job.id) ?? [])];
  const state = (jobs) => jobs.map((one) => `${one.status} ${one.attempt}`).join();
  const ended = (jobs) => Math.max(...jobs.map((one) => Date.parse(one.completed_at ?? 0)));
  const shown = new Map(wanted && data ? rows.map(({ job }) => [job.id, { now: state(family(job)), ended: ended(family(job)) }]) : []);
  const changed = ([id, { now }]) => asked.current.get(id)?.now !== now;
  const unsettled = ([id, { now, ended }]) => now.includes("running") || Date.now() - Math.max(ended, asked.current.get(id)?.since ?? 0) < LATE;
  const ask = async (which) => {
    const some = [...shown].filter(which), call = ++calls.current;
    for (const [id, { now }] of some) {
      const before = asked.current.get(id);
      asked.current.set(id, { now, call, since: !before || before.now === now ? before?.since : Date.now() });
    }
    if (some.some(unsettled)) {
      clearTimeout(timer.current);
      timer.current = setTimeout(() => latest.current.ask((one) => changed(one) || latest.current.unsettled(one)), COUNTED);
    }
    for (let i = 0; i < some.length; i += AT_ONCE) {
      const job = some.slice(i, i + AT_ONCE).map(([id]) => id);
      const found = await api.request("statistics/events-by-job", { job }).catch(() => { job.forEach((id) => asked.current.delete(id)); return []; });
      const newest = found.filter((one) => asked.current.get(one.job_id)?.call === call); // an older answer may come later
      setLines((old) => new Map([...old, ...newest.map((one) => [one.job_id, one])]));
    }
  };
  latest.current = { ask, unsettled };
  useEffect(() => {
    if (loaded.current !== data?.usual) { loaded.current = data?.usual; asked.current.clear(); called.current = Date.now(); }
    ask(changed);
  }, [[...shown].map(([id, { now }]) => `${id} ${now}`).join(), data?.usual]);
  useEffect(() => () => clearTimeout(timer.current), []);
  return { lines, refresh: () => { if (Date.now() - called.current > COUNTED) { called.current = Date.now(); ask((one) => changed(one) || unsettled(one)); } } };
}

export function Detail({ job }) {
  if (job.status === "running") {
    return html`${job.percent_complete != null && html`<${Progress} percent=${job.percent_complete} /> ${percent(job.percent_complete)} `}<span class="ink2">${job.current_step ?? ""}</span>${job.attempt > 1 && html` <span class="warn"><${Glyph} of="retrying" /> attempt ${job.attempt}</span>`}`;
  }
  if (job.status === "pending") return html`<span class="ink2">waiting to start</span>`;
  if (job.error && job.status !== "completed") {
    const word = job.status === "crashed" ? "process died" : job.error.type;
    return html`<span class=${job.status === "cancelled" ? "ink2" : "err"}>${job.current_step && job.status === "failed" ? `${job.current_step} ` : ""}${job.status === "cancelled" ? "cancelled" : word}</span> ${brief(job.error.message, 140)}`;
  }
  return html`${job.attempt > 1 && html`<span class="warn"><${Glyph} of="retrying" /> attempt ${job.attempt}</span> `}<span class="ink2">${job.result == null ? "" : brief(summary(job.result), 140)}</span>`;
}

function summary(result) {
  if (typeof result !== "object" || Array.isArray(result)) return result;
  return Object.entries(result).map(([key, value]) => `${key} ${brief(value, 40)}`).join(" · ");
}

export const identity = (job) => job.external_job_id || job.id.slice(-8);

/** A number of lines as a link to them. The log of a job has those of its child jobs, and so does the number. */
function Lines({ job, lines, of, query, className = "" }) {
  const n = lines?.[of];
  if (n === undefined) return null;
  if (n === null) return html`<span class="dim" title="too many to be counted quickly">–</span>`;
  if (!n) return html`<span class="dim">·</span>`;
  return html`<a class=${className} title=${plural(n, query?.level ?? query?.levels ?? "line")} href=${href("jobs", job.id, query)}>${n < 10_000_000 ? dot(n) : `${count(Math.floor(n / 1_000_000))}\u202fM`}</a>`;
}

// What a reader can choose, in its order: title, class of the column and of its cells, the cell.
// What is not "wide" is shown on small screens, too.
const COLUMNS = {
  family: ["Family", "c-family", "wide", ({ kids }) => kids.length > 0 && html`<${Family}>${kids}<//>`],
  detail: ["Detail", "", "wide", ({ job }) => html`<${Detail} job=${job} />`],
  started: ["Started", "c-time", "r wide", ({ job }) => html`<span title=${full(job.started_at ?? job.created_at)}>${job.started_at ? when(job.started_at) : "–"}</span>`],
  ended: ["Ended", "c-time", "r wide", ({ job }) => (job.completed_at ? html`<span title=${full(job.completed_at)}>${when(job.completed_at)}</span>` : "–")],
  took: ["Took", "c-took", "r", ({ job, ms }) => spent(ms, job.status)],
  usual: ["vs usual", "c-usual", "wide", ({ job, ms, data }) => html`<${Usual} ms=${ms} usual=${data.usual.get(job.operation)} status=${job.status} />`],
  lines: ["Lines", "c-lines", "r wide large", ({ job, lines }) => html`<${Lines} job=${job} lines=${lines} of="total" />`],
  errors: ["E", "c-e", "r", ({ job, lines }) => html`<${Lines} className="err" job=${job} lines=${lines} of="errors" query=${{ level: "error" }} />`, "Errors"],
  warnings: ["W", "c-e", "r wide large", ({ job, lines }) => html`<${Lines} className="warn" job=${job} lines=${lines} of="warnings" query=${{ levels: "warning" }} />`, "Warnings"],
  owner: ["Owner", "c-owner", "wide", ({ job }) => job.owner ?? ""],
  project: ["Project", "c-host", "wide", ({ job }) => job.project ?? ""],
  type: ["Type", "c-host", "wide", ({ job }) => job.job_type ?? ""],
  attempt: ["Attempt", "c-owner", "r wide", ({ job }) => count(job.attempt)],
  host: ["Host", "c-host", "wide", ({ job, data }) => data.hosts.get(job.session_id) ?? (job.session_id ? "" : "–")],
  id: ["Id", "c-id", "r wide mono dim", ({ job }) => identity(job)],
};
const USUAL = Object.keys(COLUMNS).filter((one) => !["ended", "project", "type", "attempt"].includes(one));
const KEPT = "structjob-columns", FIRST = "job"; // the column that is always there: so the choice of no other is one, too
const known = (names) => Object.keys(COLUMNS).filter((one) => names.includes(one));
const kept = recall(KEPT);
const chosen = signal(kept ? known(kept.split(",")) : USUAL);

function choose(names) {
  chosen.value = known(names);
  remember(KEPT, names === USUAL ? "" : [FIRST, ...chosen.value].join());
}

/** The choice of columns: boxes that Tab and the arrow keys go through, and Space ticks. */
function ColumnChoice() {
  const box = useRef(null);
  useEffect(() => { box.current.querySelector("input").focus(); }, []);
  const move = (event) => {
    const by = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (!by) return;
    const all = [...box.current.querySelectorAll("input, button")];
    all[(all.indexOf(document.activeElement) + by + all.length) % all.length].focus();
    event.preventDefault();
  };
  return html`<div class="choice" role="group" aria-label="columns" ref=${box} onKeyDown=${move}>${Object.entries(COLUMNS).map(([name, [title, , , , long = title]]) => html`
    <label key=${name}><input type="checkbox" checked=${chosen.value.includes(name)} onChange=${(event) => choose(event.target.checked ? [...chosen.value, name] : chosen.value.filter((one) => one !== name))} /> ${long}</label>`)}
    <button type="button" class="link" onClick=${() => choose(USUAL)}>Reset</button></div>`;
}

function Row({ job, data, lines, columns, depth, open, onToggle, current, onSelect, last, unfolded }) {
  const kids = data.families.get(job.id) ?? [];
  const all = { job, data, lines, kids, ms: took(job) };
  return html`<tr class=${`${depth ? "kid" : ""} ${last ? "last" : ""} ${unfolded ? "unfolded" : ""} ${current ? "cur" : ""}`} aria-selected=${current ? "true" : undefined} onClick=${onSelect}>
    <td><div class="job">${kids.length ? html`<button type="button" class="twisty" onClick=${(event) => { event.stopPropagation(); onToggle(); }} aria-expanded=${String(open)} aria-label=${`${plural(kids.length, "child job", "child jobs")} of ${job.operation}`}>${open ? "▾" : "▸"}</button>` : html`<span class="twisty"></span>`}
      <${Glyph} of=${job.status} /> <a class="name" href=${href("jobs", job.external_job_id || job.id)}>${job.operation}</a> <span class="what cut">${job.description ?? ""}</span></div></td>
    ${columns.map((name) => html`<td key=${name} class=${COLUMNS[name][2]}>${COLUMNS[name][3](all)}</td>`)}</tr>`;
}

export default function Jobs({ query }) {
  const key = query.toString();
  const { data, error, took: ms, slow, reload, set } = useData((signal) => load(query, signal), [key]);
  const [at, setAt] = usePlace("job", 0);
  const [open, setOpen] = usePlace("open", new Set());
  const [adding, setAdding] = useState(false);
  const newer = useNewer(query, data);
  const refresh = useLiveRows(data, set);
  const counted = useCounts(query, data);
  const status = query.get("status") || "";
  const rows = useMemo(() => {
    const out = [];
    const add = (job, depth, last) => {
      const kids = data.families.get(job.id) ?? [];
      const unfolded = open.has(job.id) && kids.length > 0;
      out.push({ job, depth, last, unfolded });
      if (unfolded) kids.forEach((kid, i) => add(kid, depth + 1, i === kids.length - 1));
    };
    data?.page.items.forEach((job) => add(job, 0, false));
    return out;
  }, [data, open]);
  const columns = chosen.value;
  const counts = useLines(rows, data, ["lines", "errors", "warnings"].some((one) => columns.includes(one)));
  useChanges("jobs", () => { newer.look(); refresh(); counted.refresh(); counts.refresh(); });
  const toggle = (id, to) => setOpen((old) => { const out = new Set(old); if (to ?? !out.has(id)) out.add(id); else out.delete(id); return out; });
  const current = rows[Math.min(at, rows.length - 1)];
  const move = (by) => setAt(Math.max(0, Math.min(rows.length - 1, at + by)));
  const chips = [...query].filter(([name]) => !["status", "root", "cursor", "window", "limit"].includes(name)); // all that is asked for and has no control of its own
  const arrow = query.get("order") === "asc" ? " ↑" : " ↓", longest = query.get("sort") === "duration";
  const rootOnly = params(query).root;
  usePage({
    title: "Jobs",
    keys: [["j k", "move"], ["⏎", "open"], ["→", "unfold"], ["f", "filter"], ["c", "columns"], ["y", "copy link"]],
    facts: data ? `${plural(data.page.items.length, "job")}${data.page.next_cursor ? ", more exist" : ""}${data.page.partial ? " · partial" : ""} · ${count(ms)}\u202fms` : slow ? "reading jobs" : "",
    on: {
      j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), g: () => setAt(0), G: () => setAt(rows.length - 1),
      Enter: () => current && go(href("jobs", current.job.external_job_id || current.job.id)),
      ArrowRight: () => current && toggle(current.job.id, true), ArrowLeft: () => current && toggle(current.job.id, false),
      c: () => { const button = document.querySelector("button.columns"); return Boolean(button.offsetParent) && button.click(); }, f: () => setAdding(true), r: () => { reload(); newer.clear(); },
      Escape: () => { if (adding) setAdding(false); else if (chips.length) setQuery({ [chips.at(-1)[0]]: null }); else return false; return true; },
    },
  });
  const body = useRef(null);
  useEffect(() => { body.current?.querySelector("tr.cur")?.scrollIntoView({ block: "nearest" }); }, [at, Boolean(data)]);
  return html`<div class="bar">
      <select class="only-small btn" aria-label="status" value=${status} onChange=${(event) => setQuery({ status: event.target.value, cursor: null })}>${[["", "All statuses"], ...STATES.map((one) => [one, capital(one)])].map(([key, word]) => html`<option key=${key} value=${key}>${word}${counted.counts[key] > 0 ? ` ${count(counted.counts[key])}` : ""}</option>`)}</select>
      <span class="wide"><${Segments} label="status" value=${status} onChoose=${(value) => setQuery({ status: value, cursor: null })} items=${[["", "All"], ...STATES.map((one) => [one, html`<${Glyph} of=${one} label="" /> ${capital(one)}`, counted.counts[one] > 0 ? count(counted.counts[one]) : null])]} /></span>
      ${rootOnly && html`<${Chip} name="child jobs" op="" value="hidden" onRemove=${() => setQuery({ root: "0", cursor: null })} title="child jobs unfold below their parents; × lists them as rows of their own" />`}
      ${chips.map(([name, value]) => html`<${Chip} name=${name} op=${name === "q" ? "~" : name === "since" ? "≥" : name === "until" ? "<" : "="} value=${value} onRemove=${() => setQuery({ [name]: null, cursor: null })} onClick=${() => setAdding(name)} />`)}
      <${AddFilter} open=${adding} setOpen=${setAdding} fields=${FIELDS.filter((one) => one !== "since" && one !== "until")} extra="metadata." values=${{ status: STATES }} onAdd=${(name, value) => setQuery({ [name]: value, cursor: null })} />
      <span class="grow"></span>
      <span class="wide"><${Menu} className="btn quiet columns" label="Columns"><${ColumnChoice} /><//></span>
      <${Menu} className="btn quiet" label="⋯" title="more"><a href=${apiUrl("jobs", params(query))} target="_blank" rel="noreferrer">JSON</a><${CurlItem} path="jobs" params=${params(query)} /></${Menu}>
    </div>
    ${newer.count > 0 && html`<button type="button" class="newer" onClick=${() => { reload(); newer.clear(); }}><b>${count(newer.count)} newer</b> ${newer.count === 1 ? "job" : "jobs"} since this list was loaded <kbd>r</kbd><span>rows do not move while you read</span></button>`}
    ${error && !data ? html`<${Failed} error=${error} retry=${reload} />` : data && !rows.length ? html`<${Empty} query=${query} chips=${chips} status=${status} />` : html`
    <div class="scroll" tabindex="-1"><div class="tbl-pad"><table class="tbl jobs" aria-label="jobs"><colgroup><col class=${columns.includes("detail") ? "c-job" : ""} />${columns.map((one) => html`<col key=${one} class=${`${COLUMNS[one][1]} ${COLUMNS[one][2]}`} />`)}</colgroup>
      <thead><tr><th scope="col">Job</th>${columns.map((one) => { const [title, , kind, , long] = COLUMNS[one]; return html`<th key=${one} scope="col" class=${kind.replace(/ mono| dim/g, "")} title=${long} aria-label=${long}>${title}${one === (longest ? "took" : "started") ? arrow : ""}</th>`; })}</tr></thead>
      <tbody ref=${body}>${data && rows.map((row, i) => html`<${Row} key=${row.job.id} ...${row} data=${data} lines=${counts.lines.get(row.job.id)} columns=${columns} open=${open.has(row.job.id)} onToggle=${() => toggle(row.job.id)} current=${i === at} onSelect=${() => setAt(i)} />`)}</tbody></table></div>
      ${data && (data.page.next_cursor || query.get("cursor")) && html`<div class="bar">${query.get("cursor") && html`<a class="btn" href=${href("jobs", "", without(query, "cursor"))}>Newest</a>`}${data.page.next_cursor && html`<button type="button" class="btn" onClick=${() => setQuery({ cursor: data.page.next_cursor })}>Older jobs</button>`}</div>`}</div>`}`;
}

function without(query, name) { const out = new URLSearchParams(query); out.delete(name); return out; }

function Empty({ query, chips, status }) {
  if (!chips.length && !status && !query.get("cursor")) return html`<${FirstRun} />`;
  const all = [...chips, ...(status ? [["status", status]] : [])];
  return html`<div class="state"><h1>No job matches all of these</h1><p>What each filter hides by itself:</p>${all.map(([name, value]) => html`<${Hides} key=${name} name=${name} value=${value} query=${query} />`)}
    <p></p><a class="btn" href=${href("jobs", "", { root: "0" })}>Clear all filters</a></div>`;
}

function Hides({ name, value, query }) {
  const rest = params(without(query, name));
  const { data } = useData((signal) => api.listJobs({ ...rest, limit: 100 }, signal), [name, value, query.toString()]);
  const n = data?.items.length ?? null;
  return html`<div class="hides"><${Chip} name=${name} value=${value} onRemove=${() => setQuery({ [name]: null })} /><span class="ink2">${n === null ? "" : n ? `hides ${count(n)}${data.next_cursor ? " or more" : ""}` : "hides none by itself"}</span><button type="button" class="btn" onClick=${() => setQuery({ [name]: null })}>Remove</button></div>`;
}

/** How many jobs came after the newest of the list; counted while the page is live. */
function useNewer(query, data) {
  const [n, setN] = useState(0);
  const since = data?.page.items[0]?.created_at;
  const known = useRef(new Set());
  useEffect(() => { known.current = new Set(data?.page.items.map((job) => job.id)); setN(0); }, [data?.page]);
  const look = async () => {
    if (!data || query.get("cursor")) return;
    try {
      const page = await api.listJobs({ ...params(query), ...(since ? { since } : {}), limit: 100 });
      setN(page.items.filter((job) => !known.current.has(job.id)).length);
      answered(null);
    } catch (error) { answered(error, look); }
  };
  return { count: n, look, clear: () => setN(0) };
}

/** What has running rows change in place; the order stays. */
function useLiveRows(data, set) {
  const latest = useRef(data);
  latest.current = data;
  const running = () => [...(latest.current?.page.items ?? []), ...[...(latest.current?.families.values() ?? [])].flat()].filter((job) => job.status === "running" || job.status === "pending");
  return async () => {
    const jobs = running();
    if (!jobs.length) return;
    try {
      const fresh = new Map();
      const oldest = jobs.reduce((least, job) => (job.created_at < least ? job.created_at : least), jobs[0].created_at);
      for (const job of (await api.listJobs({ since: oldest, limit: 1000 })).items) fresh.set(job.id, job);
      const old = latest.current;
      const swap = (job) => fresh.get(job.id) ?? job;
      const families = new Map([...old.families].map(([id, kids]) => [id, kids.map(swap)]));
      for (const job of fresh.values()) if (job.parent_job_id && !(families.get(job.parent_job_id) ?? []).some((one) => one.id === job.id)) families.set(job.parent_job_id, [...(families.get(job.parent_job_id) ?? []), job]);
      set({ ...old, page: { ...old.page, items: old.page.items.map(swap) }, families });
    } catch { /* the next turn tries again */ }
  };
}

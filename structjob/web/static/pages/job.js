// One job: what became of it, its steps on one axis, and its log at the line that matters.

import { Chip, Copy, Glyph, Menu, Progress, Segments, answered, html, live, now, useData, useEffect, useMemo, useRef, useState, usePage } from "../ui.js";
import { ago, brief, bytes, clock, count, duration, full, percent, plural, spent, when, zone } from "../format.js";
import { api, apiUrl, go, href, permanent, setQuery } from "../route.js";
import { frames } from "../logs-text.js";
import { Waterfall, find, nodesOf, rowsOf, unfoldedAtFirst } from "../waterfall.js";
import { CurlItem, Failed, took } from "./common.js";
import { LogBox, filterOf, NOT_FILTERS } from "./logbox.js";

/** Milliseconds between two looks at whether a job that has ended runs again. */
const AGAIN = 10_000;
/** How much of a tree the page asks for; its document asks for the same, see shell.py. */
const TREE = { depth: 4, limit: 20_000 }, DETAIL = { events: 0 };

async function load(id, signal) {
  const [detail, tree, attempts] = await Promise.all([
    api.getJob(id, DETAIL, signal), api.getTree(id, TREE, signal),
    api.listAttemptsOfJob(id, signal).catch(() => []),
  ]);
  return { ...detail, tree, attempts };
}

/** Resolved once the first lines are drawn: what is less urgent does not slow them down. */
const firstLines = () => new Promise((done) => {
  if (document.querySelector("structjob-logs")?.state !== "connecting") { done(); return; }
  const ended = ({ detail, type }) => {
    if (type === "structjob-counts" && !("loaded" in detail)) return;
    for (const name of ["structjob-counts", "structjob-error"]) document.removeEventListener(name, ended);
    done();
  };
  for (const name of ["structjob-counts", "structjob-error"]) document.addEventListener(name, ended);
});

/** What the page can do without at first: earlier runs, the error's group, the session. */
function useMore(job) {
  const [more, setMore] = useState({ usual: [], group: null, session: null });
  useEffect(() => {
    const abort = new AbortController();
    const add = (name, promise) => promise.then((found) => { if (!abort.signal.aborted) setMore((old) => ({ ...old, [name]: found })); }, () => {});
    const drawn = firstLines();
    add("usual", drawn.then(() => api.listJobs({ operation: job.operation, status: "completed", limit: 70, until: job.created_at }, abort.signal)).then((page) => page.items.map((one) => one.duration_ms).filter((one) => one != null)));
    if (job.session_id) add("session", drawn.then(() => api.getSession(job.session_id, abort.signal)));
    if (job.error) {
      // The last lines of a failed job are its error's; only rarely must one look further back.
      const lastError = async (limit) => (await api.listLogs({ job: job.id, level: "error", limit, children: 0, order: "desc" }, abort.signal)).items.find((one) => one.fingerprint);
      add("group", drawn.then(() => lastError(3)).then(async (last) => {
        const line = last ?? (await lastError(20));
        const found = line && (await api.getError(line.fingerprint, abort.signal));
        return found ? found.group : null;
      }));
    }
    return () => abort.abort();
  }, [job.id, job.status, job.session_id]);
  return more;
}

/** What few visits need comes when it is needed. */
function Rare({ name, ...props }) {
  const [View, setView] = useState(null);
  useEffect(() => { import("./job-rare.js").then((module) => setView(() => module[name])); }, []);
  return View && html`<${View} ...${props} />`;
}

export default function Job({ id, query }) {
  const { data, error, took: readMs, slow, reload, set } = useData((signal) => load(id, signal), [id]);
  if (error && !data) return error.status === 404 ? html`<${Rare} name="NotFound" id=${id} reload=${reload} />` : html`<${Failed} error=${error} retry=${reload} />`;
  if (!data) return slow ? html`<div class="state"><p>reading the job</p></div>` : null;
  return html`<${Loaded} key=${data.job.id} data=${data} query=${query} reload=${reload} set=${set} readMs=${readMs} />`;
}

function Loaded({ data: loaded, query, reload, set, readMs }) {
  const { job } = loaded;
  const more = useMore(job);
  const data = { ...loaded, ...more };
  const attempt = Number(query.get("attempt")) || job.attempt;
  const older = attempt !== job.attempt;
  const olderSteps = useData((signal) => (older ? api.listSteps(job.id, { attempt }, signal) : Promise.resolve(null)), [attempt]);
  const nodes = useMemo(() => (older ? nodesOf({ job, steps: olderSteps.data ?? [], children: [] }) : nodesOf(data.tree)), [data.tree, older, olderSteps.data]);
  const [unfolded, setUnfolded] = useState(() => unfoldedAtFirst(nodes));
  const marks = useMarks(job, nodes, data);
  const [cancelling, setCancelling] = useState(false);
  const [details, setDetails] = useState(false);
  const logs = useRef(null);
  const box = useRef(null);
  const running = job.status === "running" || job.status === "pending";
  const view = query.get("view") || "waterfall";
  const wanted = query.get("step");
  const selected = wanted ? find(nodes, (node) => node.id === wanted) ?? find(nodes, (node) => node.name === wanted) : null;
  const [cursor, setCursor] = useState(() => find(nodes, (node) => node.status === "failed" && !node.kids.length)?.id ?? null);
  const failing = useMemo(() => find(nodes, (node) => node.kind === "step" && node.status === "failed" && !node.kids.length), [nodes]);
  const at = selected?.id ?? cursor;
  useEffect(() => { setUnfolded((old) => (old.size ? old : unfoldedAtFirst(nodes))); }, [nodes]);
  useLive(loaded, set, reload, running);

  const select = (node) => {
    if (!node || node.kind === "more") return;
    setCursor(node.id);
    if (node.kind === "group") { setUnfolded((old) => new Set([...old, node.id])); return; }
    setQuery({ step: selected?.id === node.id ? null : node.kind === "step" && find(nodes, (one) => one.name === node.name) === node ? node.name : node.id, at: null });
  };
  const onUnfold = (nodeId, open) => setUnfolded((old) => { const out = new Set(old); if (open) out.add(nodeId); else out.delete(nodeId); return out; });
  const reveal = (node) => {
    if (!node) return;
    const path = [];
    const visit = (list) => list.some((one) => one === node || (visit(one.kids) && path.push(one.id)));
    visit(nodes);
    setUnfolded((old) => new Set([...old, ...path]));
    select(node);
  };
  const stepBy = (by) => {
    const rows = rowsOf(nodes, unfolded);
    const i = rows.findIndex((row) => row.node.id === at);
    const next = rows[i < 0 ? (by > 0 ? 0 : rows.length - 1) : i + by];
    if (next) { if (next.node.kind === "group") setCursor(next.node.id); else select(next.node); }
  };
  const leaves = () => { const out = []; const visit = (list) => list.forEach((one) => { if (!one.kids.length) out.push(one); visit(one.kids); out.push(...(one.kind === "group" ? one.all : [])); }); visit(nodes); return out; };
  const bad = (one) => one.status === "failed" || one.status === "crashed";
  const slowest = () => reveal(leaves().reduce((most, one) => ((one.took ?? 0) > (most?.took ?? -1) ? one : most), null));
  const failed = () => { const all = leaves().filter(bad); reveal(all[(all.findIndex((one) => one.id === selected?.id) + 1) % (all.length || 1)]); };
  const hints = useMemo(() => { const all = leaves(); return { failed: all.some(bad), slowest: all.filter((one) => one.took != null).length > 1 }; }, [nodes]);
  const show = (name) => setQuery({ view: name === "waterfall" ? null : name }, { replace: true });

  const filter = useMemo(() => {
    const out = { job: job.id, ...filterOf(query, new Set(["step", "attempt", "view", ...NOT_FILTERS])) };
    if (query.get("attempt")) { out.attempt = attempt; out.children = 0; }
    if (selected) Object.assign(out, stepFilter(selected, job));
    else if (wanted) out.step = wanted;
    return out;
  }, [query.toString(), selected?.id, job.id]);

  usePage({
    title: `${job.operation} ${job.external_job_id ?? ""} ${job.status}`,
    keys: [...(running ? [["r", "resume"], ["G", "end"]] : []), ["e E", "error"], ["[ ]", "step"], ["c", "context"], ["w", "wrap"], ["u", "UTC"], ...(data.group ? [["x", "how often"]] : []), ...(selected ? [["Esc", "leave step filter"]] : [])],
    facts: running ? `read in ${count(readMs)}\u202fms` : "job ended · stream closed",
    on: {
      "[": () => stepBy(-1), "]": () => stepBy(1), F: failed, S: slowest,
      1: () => show("waterfall"), 2: () => show("tree"), 3: () => show("flat"),
      ArrowRight: () => (at ? onUnfold(at, true) : false), ArrowLeft: () => (at ? onUnfold(at, false) : false),
      x: () => { if (!data.group) return false; go(href("errors", data.group.fingerprint)); return true; },
      Escape: () => {
        if (logs.current?.handleKey(new KeyboardEvent("keydown", { key: "Escape" }))) return true;
        if (wanted) { setQuery({ step: null, at: null }); return true; }
        return false;
      },
    },
  });
  const word = statusWords(job);
  return html`
    <div class="head"><div class="grow">
      <h1><${Glyph} of=${job.status} /><b>${job.operation}</b><span class="ink2">${job.description ?? ""}</span><span class=${word.color}>${word.text}</span></h1>
      <div class="facts-line"><span>job <span class="mono">${job.external_job_id || job.id.slice(-8)}</span></span>${job.owner && html`<span>by <b>${job.owner}</b></span>`}
        ${data.session && html`<span>on <a href=${href("sessions", job.session_id)}><b>${data.session.host}</b> pid ${data.session.pid}</a></span>`}
        <span title=${full(job.started_at ?? job.created_at)}>${job.started_at ? "started" : "created"} <b>${when(job.started_at ?? job.created_at)}</b> ${zone(job.started_at ?? job.created_at)}, ${ago(job.started_at ?? job.created_at)}</span>
        ${job.started_at && html`<span>${job.status === "running" ? "running" : "took"} <b>${spent(took(job), job.status)}</b></span>`}
        ${job.parent_job_id && html`<a class="link" href=${href("jobs", job.parent_job_id)}>parent job</a>`}</div></div>
      <${Rug} data=${data} ms=${took(job)} />
      <div class="acts">${running && html`<button type="button" class="btn danger" onClick=${() => setCancelling(true)}>Cancel job…</button>`}
        <span class="wide"><${Copy} className="btn" text=${() => permanent({ at: logs.current?.cursor })}>Copy link <kbd>y</kbd><//></span>
        <a class="btn quiet wide" href=${apiUrl(`jobs/${encodeURIComponent(job.id)}`)} target="_blank" rel="noreferrer">JSON</a>
        <${Menu} className="btn quiet" label="⋯" title="more"><a href=${apiUrl("logs.txt", filter)} download>Download the lines (.txt)</a><a href=${apiUrl("logs.jsonl", filter)} download>Download the lines (.jsonl)</a><a href=${apiUrl(`jobs/${encodeURIComponent(job.id)}/export`)} download>Export the job</a><${CurlItem} path=${`jobs/${encodeURIComponent(job.id)}`} /></${Menu}></div></div>
    ${job.status === "running" && html`<${Overall} job=${job} estimate=${data.estimate} />`}
    <div class="tabs" role="group" aria-label="attempts and views">
      ${data.attempts.length > 1 && data.attempts.map((one) => html`<button type="button" key=${one.attempt} aria-pressed=${String(one.attempt === attempt)} onClick=${() => setQuery({ attempt: one.attempt === job.attempt ? null : one.attempt, step: null, at: null })}><${Glyph} of=${one.status} /> Attempt ${one.attempt} <small>${clock(one.started_at, false)} · ${spent(one.duration_ms, one.status)}</small></button>`)}
      <button type="button" class="only-small" aria-pressed=${String(details)} onClick=${() => setDetails(!details)}>${details ? "Steps and log" : "Details"}</button>
      <span class="grow"></span><span class="bar-keys wide dim">${hints.failed && html`failed <kbd>F</kbd> `}${hints.slowest && html`slowest <kbd>S</kbd>`}</span>
      <span class="wide views"><${Segments} label="view" value=${view} onChoose=${show} items=${[["waterfall", "Waterfall"], ["tree", "Tree"], ["flat", "Flat"]]} /></span></div>
    <div class="job-body"><div class="job-main" hidden=${details}>
      ${job.error && html`<a class="error-top" href=${data.group ? href("errors", data.group.fingerprint) : undefined}><b class="err">${job.error.type}</b><div class="mono">${brief(job.error.message, 200)}</div></a>`}
      ${view === "waterfall" ? html`<${Waterfall} job=${older ? { ...job, status: "failed", started_at: data.attempts.find((one) => one.attempt === attempt)?.started_at ?? job.started_at, completed_at: data.attempts.find((one) => one.attempt === attempt)?.completed_at } : job} nodes=${nodes} unfolded=${unfolded} onUnfold=${onUnfold} current=${at} onSelect=${select} marks=${marks} estimate=${data.estimate} boxRef=${box} />`
        : html`<${Rare} name="StepTable" nodes=${nodes} flat=${view === "flat"} current=${at} onSelect=${select} />`}
      <${LogBox} boxRef=${logs} filter=${filter} follow=${running && !older} query=${query} hidden=${new Set(["job"])} columns=${["logger"]}
        chips=${wanted ? [html`<${Chip} kind="step" name="step" value=${selected?.name ?? wanted} onRemove=${() => setQuery({ step: null, at: null })} />`] : []}
        start=${query.get("at") ? { at: query.get("at") } : job.status === "failed" || job.status === "crashed" ? { first: "error", within: failing ? { step_id: failing.record.id } : null } : null} channels=${["logs", "tree"]} />
      </div><${Side} data=${data} shown=${details} /></div>
    ${cancelling && html`<${Rare} name="Cancel" job=${job} onClose=${() => setCancelling(false)} reload=${reload} />`}`;
}

/** Filters of the log for a row: a step and its own steps by name, a child job by its id. */
function stepFilter(node, job) {
  if (node.kind === "job") return { job: node.record.id };
  const names = [], kids = [];
  const visit = (one) => { if (one.kind === "job") kids.push(one); else { if (one.record) names.push(one.record.id); one.kids.forEach(visit); (one.all ?? []).forEach(visit); } };
  visit(node);
  // Child jobs during the step: what was logged while it ran.
  if (kids.length) return { job: job.id, since: new Date(node.start).toISOString(), ...(node.end ? { until: new Date(node.end + 1).toISOString() } : {}) };
  if (names.length === 1) return { step_id: node.record.id };
  const all = [];
  const name = (one) => { if (one.kind === "step") all.push(one.name); one.kids.forEach(name); };
  name(node);
  return { step: [...new Set(all)].slice(0, 50), children: 0 };
}

function statusWords(job) {
  const at = job.current_step ? ` in ${job.current_step}` : "";
  return {
    failed: { text: `failed${at}`, color: "err" }, crashed: { text: `crashed${at}`, color: "err" }, running: { text: job.current_step ?? "running", color: "accent" },
    completed: { text: "completed", color: "ink2" }, cancelled: { text: "cancelled", color: "ink2" }, pending: { text: "waiting to start", color: "ink2" },
  }[job.status] ?? { text: job.status, color: "ink2" };
}

function Rug({ data, ms: present }) {
  const { estimate, usual, job } = data;
  if (!estimate?.samples || usual.length < 2) return null;
  const sorted = [...usual].sort((a, b) => a - b);
  const span = Math.max(present ?? 0, sorted.at(-1)) * 1.05 || 1;
  const x = (value) => Math.round((188 * value) / span) + 0.5;
  const share = sorted.filter((one) => one < (present ?? 0)).length / sorted.length;
  const kind = job.status === "running" ? "run" : job.status === "failed" || job.status === "crashed" ? "bad" : "done";
  return html`<div class="rug"><svg viewBox="0 0 190 22" role="img" aria-label="this duration among earlier ones"><line class="rugline" x1="0" x2="190" y1="19.5" y2="19.5" />
    ${sorted.map((one) => html`<line class="rugtick" x1=${x(one)} x2=${x(one)} y1="12" y2="19" />`)}<line class="rugmid" x1=${x(estimate.median_ms)} x2=${x(estimate.median_ms)} y1="7" y2="19" />
    ${present != null && html`<line class=${`s-${kind} pin`} x1=${x(present)} x2=${x(present)} y1="2" y2="19" /><path class=${`b-${kind}`} d=${`M${x(present) - 4} 0h8l-4 5z`} />`}</svg>
    ${estimate.slower && html`<span class="warn"><${Glyph} of="slower" /> </span>`}${plural(estimate.samples, "run")}, usually ${duration(estimate.median_ms)}${share === 1 ? " · slower than all" : share >= 0.5 ? ` · slower than ${percent(100 * share)}` : ""}</div>`;
}

function Overall({ job, estimate }) {
  const left = estimate?.remaining_ms;
  const done = job.percent_complete;
  return html`<div class="overall">${done != null ? html`<${Progress} percent=${done} /><b>${percent(done)}</b>` : html`<span>progress is not reported</span>`}
    <span>${left != null ? html`about <b>${duration(left)}</b> left, ends near <b>${clock(now.value + left, false)}</b>` : "time left unknown"}</span></div>`;
}

function Pairs({ of }) {
  const out = [];
  const visit = (value, prefix) => {
    for (const [key, one] of Object.entries(value ?? {})) {
      const name = prefix ? `${prefix}.${key}` : key;
      if (one && typeof one === "object" && !Array.isArray(one) && out.length < 60) visit(one, name);
      else out.push([name, typeof one === "string" ? one : JSON.stringify(one)]);
    }
  };
  visit(of, "");
  return html`<dl class="kv">${out.slice(0, 60).map(([key, value]) => html`<dt title=${key}>${key}</dt><dd class=${/^[\w.-]+$/.test(value) ? "mono" : ""}>${brief(value ?? "null", 600)}</dd>`)}</dl>`;
}

function Side({ data, shown }) {
  const { job, group, session, lost_events: lost } = data;
  const ids = [["job", job.id], ["external", job.external_job_id], ["context", job.context_id], ["correlation", job.correlation_id], ["idempotency", job.idempotency_key]].filter(([, value]) => value);
  const missing = Object.values(lost ?? {}).reduce((a, b) => a + b, 0);
  const kids = data.tree.children ?? [];
  const states = kids.reduce((out, one) => ({ ...out, [one.job.status]: (out[one.job.status] ?? 0) + 1 }), {});
  const wall = took(job);
  const place = frames(job.error?.traceback ?? "").findLast((one) => one.own);
  return html`<aside class=${`side ${shown ? "shown" : ""}`} aria-label="details" tabindex="-1">
    ${job.error && html`<section><h2>Error <kbd class="wide">e</kbd></h2><h3 class="err">${job.error.type}</h3><p class="mono">${brief(job.error.message, 800)}</p>${place && html`<p class="mono place" title=${place.path}><b>${place.file}:${place.line}</b> in <b>${place.name}</b></p>`}
      ${group && html`<p><a class="link" href=${href("errors", group.fingerprint)}><b>${count(group.count)}×</b> in ${plural(group.jobs, "job")}, first ${ago(group.first_seen)}</a>${group.status !== "open" && html`<span class=${`tag ${group.status}`}>${group.status}</span>`}</p>`}</section>`}
    <section><h2>Result</h2>${job.result == null ? html`<p class="dim">${job.status === "running" ? "Not yet: the job is running." : job.status === "pending" ? "Not yet: the job waits." : job.status === "completed" ? "None was returned." : `None: the job ${job.status} before it returned.`}</p>` : typeof job.result === "object" && !Array.isArray(job.result) ? html`<${Pairs} of=${job.result} />` : html`<p class="mono">${brief(job.result, 800)}</p>`}</section>
    ${job.metadata && Object.keys(job.metadata).length > 0 && html`<section><h2>Metadata</h2><${Pairs} of=${job.metadata} /></section>`}
    <section><h2>Ids</h2><dl class="kv">${ids.map(([name, value]) => html`<dt>${name}</dt><dd class="mono cut" title=${value}>${value}</dd><dd class="copycell"><${Copy} text=${value} label=${`copy the ${name} id`} /></dd>`)}</dl></section>
    <section><h2>Resources</h2><dl class="kv">${job.cpu_ms != null && html`<dt>CPU</dt><dd>${duration(job.cpu_ms)}${wall ? html` <span class="dim">· ${percent((100 * job.cpu_ms) / wall)} of wall</span>` : ""}</dd>`}
      ${job.max_rss_kb != null && html`<dt>memory</dt><dd>${bytes(job.max_rss_kb * 1024)} peak</dd>`}
      <dt>missing</dt><dd>${missing ? html`<a class="warn" href=${href("sessions", job.session_id)}>${plural(missing, "line")}: ${Object.entries(lost).map(([reason, n]) => `${reason} ${count(n)}`).join(", ")}</a>` : "0 lines"}</dd>
      ${kids.length > 0 && html`<dt>children</dt><dd><a href=${href("jobs", "", { parent_job_id: job.id })}>${count(kids.length)}</a> <span class="dim">· ${Object.entries(states).map(([name, n]) => `${count(n)} ${name}`).join(", ")}</span></dd>`}
      ${session && html`<dt>session</dt><dd><a href=${href("sessions", job.session_id)}>${session.host}:${session.pid}</a></dd>`}</dl></section></aside>`;
}

/** Errors and warnings as marks on the bars of their steps, and of the rows above them. */
function useMarks(job, nodes, data) {
  const [lines, setLines] = useState([]);
  useEffect(() => {
    let mine = true;
    firstLines().then(() => api.listLogs({ job: job.id, level: "warning", limit: 300 })).then((page) => { if (mine) setLines(page.items); }, () => {});
    return () => { mine = false; };
  }, [job.id, job.status, data.progress?.completed_steps]);
  return useMemo(() => {
    const byStep = new Map();
    const out = new Map();
    for (const line of lines) {
      const key = line.step_id ?? line.job_id;
      const list = byStep.get(key) ?? [];
      if (list.length < 40) list.push({ time: Date.parse(line.ts), bad: line.level !== "warning" });
      byStep.set(key, list);
    }
    const visit = (node) => {
      const own = byStep.get(node.id) ?? [];
      if (own.length && !(node.status === "failed" && node.kids.length)) out.set(node.id, own);
      node.kids.forEach(visit);
      return own;
    };
    nodes.forEach(visit);
    return out;
  }, [lines, nodes]);
}

/** While the job runs its rows change in place: by the stream, else by asking every 2 seconds. */
function useLive(data, set, reload, running) {
  const latest = useRef(data);
  latest.current = data;
  useEffect(() => {
    if (!running) {
      live.value = { kind: "ended", text: "ended" };
      const look = async () => { // a job that has ended may be tried again
        if (document.hidden) return;
        const { job, attempts } = latest.current;
        const found = await api.listAttemptsOfJob(job.id).catch(() => null);
        if (found && (found.length > attempts.length || found.at(-1)?.status !== attempts.at(-1)?.status)) reload();
      };
      const timer = setInterval(look, AGAIN);
      document.addEventListener("visibilitychange", look);
      return () => { clearInterval(timer); document.removeEventListener("visibilitychange", look); };
    }
    const put = (more) => set(latest.current = { ...latest.current, ...more });
    let grow = null;
    import("../tree.js").then((module) => { grow = module; });
    let told = 0, torn = false, came = [], since = [], soon = 0, busy = false, again = false;
    // The stream brings the rows of this job's tree, unless the log shows another job's lines.
    const streamed = () => { const viewer = document.querySelector("structjob-logs"); return viewer?.state === "live" && viewer.wanted.job === latest.current.job.id; };
    const merge = (all, { tree, attempts }) => {
      for (const rows of all) {
        const next = grow?.withRows(tree, rows, TREE.depth);
        torn ||= !next;
        tree = next ?? tree;
        attempts = grow?.withAttempts(attempts, rows.attempts ?? [], tree.job.id) ?? attempts;
      }
      put({ tree, attempts });
    };
    const refresh = async () => {
      if (busy) { again = true; return; }
      const { id } = latest.current.job;
      const all = torn || !streamed();
      [busy, torn, since] = [true, false, []];
      try {
        const [detail, tree, attempts] = await Promise.all([api.getJob(id, DETAIL), ...(all ? [api.getTree(id, TREE), api.listAttemptsOfJob(id)] : [])]);
        if (!["running", "pending"].includes(detail.job.status)) { reload(); return; }
        put(detail);
        if (all) merge(since, { tree, attempts }); // rows that came meanwhile may be newer
        answered(null);
      } catch (error) {
        torn ||= all;
        answered(error, refresh);
      } finally {
        busy = false;
        if (again) { again = false; refresh(); }
      }
    };
    const apply = () => {
      soon = 0;
      since.push(...came);
      merge(came.splice(0), latest.current);
      refresh();
    };
    const rows = ({ detail }) => { told = Date.now(); came.push(detail); soon ||= setTimeout(apply, 400); };
    document.addEventListener("structjob-rows", rows);
    const timer = setInterval(() => { if (!document.hidden && Date.now() - told > 2000) refresh(); }, 2000);
    return () => { clearInterval(timer); clearTimeout(soon); document.removeEventListener("structjob-rows", rows); };
  }, [running]);
}

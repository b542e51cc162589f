// The programs that log here: whether they live, and whether every line of theirs is accounted for.

import { Copy, Glyph, Segments, html, live, now, useData, useEffect, useRef, usePage } from "../ui.js";
import { ago, count, duration, full, plural, rough, when, zone } from "../format.js";
import { api, apiUrl, go, href, setQuery } from "../route.js";
import { Failed } from "./common.js";
import { useChanges, usePlace } from "./lists.js";
import { LogBox, filterOf } from "./logbox.js";

const WORDS = { live: "running", closed: "completed", silent: "silent", died: "crashed" };
const glyphOf = (one) => WORDS[one.status];
const wordOf = (one) => one.status;

export default function Sessions({ id, query }) {
  return id ? html`<${One} id=${id} query=${query} />` : html`<${List} query=${query} />`;
}

function List({ query }) {
  const alive = query.get("live") === "1";
  const { data, error, took, reload } = useData((signal) => api.listSessions({ ...(alive ? { live: 1 } : {}), limit: 300 }, signal), [alive]);
  const [at, setAt] = usePlace("session", 0);
  const body = useRef(null);
  const rows = data ?? [];
  const current = rows[Math.min(at, rows.length - 1)];
  useChanges("sessions", reload);
  useEffect(() => { body.current?.querySelector("tr.cur")?.scrollIntoView({ block: "nearest" }); }, [at, Boolean(data)]);
  const move = (by) => setAt(Math.max(0, Math.min(rows.length - 1, at + by)));
  usePage({ title: "Sessions", keys: [["j k", "move"], ["⏎", "open"]], facts: data ? `${plural(rows.length, "session")} · ${count(took)}\u202fms` : "", on: { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), Enter: () => current && go(href("sessions", current.session_id)), r: reload } });
  if (error && !data) return html`<${Failed} error=${error} retry=${reload} />`;
  return html`<div class="bar"><${Segments} label="which" value=${alive ? "live" : ""} onChoose=${(value) => setQuery({ live: value ? "1" : null })} items=${[["", "All"], ["live", "Live"]]} /><span class="dim wide">one row for each program that opened a tracker: where it runs, and when it last gave a sign of life</span></div>
    ${data && !rows.length ? html`<div class="state"><h1>No ${alive ? "live " : ""}session</h1><p>A session begins when a program opens a tracker.</p></div>` : html`<div class="scroll" tabindex="-1"><div class="tbl-pad"><table class="tbl sess" aria-label="sessions"><colgroup><col /><col class="c-st" /><col class="c-host wide" /><col class="c-pid wide" /><col class="c-time wide" /><col class="c-day" /><col class="c-n" /><col class="c-n wide" /><col class="c-id wide" /></colgroup>
      <thead><tr><th scope="col">Program</th><th scope="col">Status</th><th scope="col" class="wide">Host</th><th scope="col" class="r wide">Pid</th><th scope="col" class="r wide">Started ↓</th><th scope="col" class="r">Heartbeat</th><th scope="col" class="r">Lines</th><th scope="col" class="r wide">Jobs now</th><th scope="col" class="r wide">Session</th></tr></thead>
      <tbody ref=${body}>${rows.map((one, i) => html`<tr key=${one.session_id} class=${i === at ? "cur" : ""} onClick=${() => setAt(i)}><td><div class="job"><${Glyph} of=${glyphOf(one)} label=${wordOf(one)} /><a class="name" href=${href("sessions", one.session_id)}>${one.service ?? "program"}</a><span class="what">${one.version ?? ""}</span></div></td><td class=${glyphOf(one) === "crashed" ? "err" : glyphOf(one) === "silent" ? "warn" : "ink2"}>${wordOf(one)}</td>
        <td class="wide">${one.host}</td><td class="r wide">${one.pid}</td><td class="r wide" title=${full(one.started_at)}>${when(one.started_at)}</td><td class="r" title=${full(one.heartbeat_at)}>${one.ended_at ? html`<span class="ink2"><span class="wide">ended </span>${when(one.ended_at)}</span>` : one.heartbeat_age_seconds != null ? rough(1000 * one.heartbeat_age_seconds) : ago(one.heartbeat_at)}</td><td class="r"><a href=${href("logs", "", { session_id: one.session_id })}>${count(one.last_seq)}</a></td><td class="r wide">${one.running_jobs ? count(one.running_jobs) : html`<span class="dim">·</span>`}</td><td class="r wide mono dim">${one.session_id}</td></tr>`)}</tbody></table></div></div>`}`;
}

function One({ id, query }) {
  const { data, error, reload } = useData(async (signal) => {
    const quiet = (promise) => promise.catch(() => null);
    const [one, gaps, found] = await Promise.all([api.getSession(id, signal), quiet(api.listGaps(id, signal)), quiet(api.countLogs({ session_id: id }, signal))]);
    return { one, gaps, stored: found?.count };
  }, [id]);
  const viewer = useRef(null);
  useEffect(() => { live.value = { kind: "ended", text: data?.one.ended_at ? "ended" : "not live" }; }, [data]);
  usePage({ title: `Session ${id}`, keys: [["j k", "line"], ["e E", "error"], ["/", "find"], ["c", "context"], ["w", "wrap"]], facts: data ? `${plural(data.one.last_seq, "line")} accepted` : "", on: {} });
  if (error && !data) return error.status === 404 ? html`<div class="state big"><h1>No session has the number <span class="mono">${id}</span></h1><p>${error.message}</p><a class="btn" href=${href("sessions")}>All sessions</a></div>` : html`<${Failed} error=${error} retry=${reload} />`;
  if (!data) return null;
  const session = data.one;
  const gone = (data.gaps ?? []).filter((gap) => gap.reason !== "missing").reduce((n, gap) => n + (gap.last_seq - gap.first_seq + 1), 0);
  const { stored } = data;
  // The rest: under way while the program lives, lost once it has ended.
  const rest = stored != null && data.gaps ? Math.max(0, session.last_seq - stored - gone) : null;
  const alive = !session.ended_at;
  return html`<div class="head"><div class="grow"><h1><${Glyph} of=${glyphOf(data.one)} label=${wordOf(data.one)} /><b>${session.service ?? "program"}</b><span class="ink2">${session.host}:${session.pid}</span><span class=${glyphOf(data.one) === "crashed" ? "err" : "ink2"}>${wordOf(data.one)}</span></h1>
      <div class="facts-line"><span>started <b title=${full(session.started_at)}>${when(session.started_at)}</b> ${zone(session.started_at)}</span><span>${alive ? html`heartbeat <b>${ago(session.heartbeat_at)}</b>` : html`ended <b>${when(session.ended_at)}</b>${session.end_reason && session.end_reason !== session.status ? ` ${session.end_reason}` : ""}`}</span>${session.version && html`<span>version <b>${session.version}</b></span>`}<span>lived <b>${duration((session.ended_at ? new Date(session.ended_at) : now.value) - new Date(session.started_at))}</b></span></div></div>
      <div class="acts"><a class="btn quiet" href=${apiUrl(`sessions/${id}`)} target="_blank" rel="noreferrer">JSON</a></div></div>
    <div class="figures"><div><div class="fig"><b>${count(session.last_seq)}</b><span>lines accepted</span></div>${stored != null && html`<span class="op">=</span><div class="fig"><b>${count(stored)}</b><span>stored</span></div><span class="op">+</span><div class="fig"><b class=${gone ? "warn" : ""}>${count(gone)}</b><span>not stored, with a reason</span></div>${rest != null && html`<span class="op">+</span><div class="fig"><b class=${rest && !alive ? "err" : ""}>${count(rest)}</b><span>${alive ? "waiting" : "missing"}</span></div>`}`}</div><div><div class="fig"><b>${count(data.one.running_jobs)}</b><span>running jobs</span></div></div></div>
    <div class="job-body"><div class="job-main"><${LogBox} boxRef=${viewer} query=${query} filter=${{ session_id: id, ...filterOf(query) }} follow=${alive} hidden=${new Set(["session_id"])} columns=${["job", "step"]} end=${true} /></div>
      <aside class="side shown" aria-label="details" tabindex="-1"><section><h2>Gaps <span>${count((data.gaps ?? []).length)}</span></h2>${(data.gaps ?? []).length ? html`<dl class="kv">${data.gaps.slice(0, 100).map((gap) => html`<dt>${gap.reason}</dt><dd>${count(gap.first_seq)}–${count(gap.last_seq)} <span class="dim">· ${plural(gap.last_seq - gap.first_seq + 1, "line")}</span></dd>`)}</dl>` : html`<p class="dim">None: no line is missing.</p>`}</section>
        <section><h2>Program</h2><dl class="kv"><dt>session</dt><dd class="mono">${session.session_id}</dd><${Copy} text=${String(session.session_id)} /><dt>host</dt><dd class="mono">${session.host}</dd><dt>pid</dt><dd class="mono">${session.pid}</dd><dt>boot</dt><dd class="mono cut" title=${session.boot_id}>${session.boot_id}</dd>${session.service && html`<dt>service</dt><dd>${session.service}</dd>`}<dt title="lines that the database has confirmed to the program">confirmed</dt><dd>${plural(session.confirmed, "line")}</dd></dl></section></aside></div>`;
}

// What runs, what needs attention, and how the day went.

import { Glyph, Progress, html, useData, useEffect, useState, usePage } from "../ui.js";
import { behind, brief, count, duration, hour, percent, plural, present, rough, span, spanText } from "../format.js";
import { api, go, href } from "../route.js";
import { Line, Throughput } from "../charts.js";
import { Failed, took } from "./common.js";
import { FirstRun, useChanges, usePlace } from "./lists.js";

const BUCKETS = { "15m": "1m", "1h": "2m", "3h": "5m", "24h": "1h", "7d": "6h", "28d": "1d" };

/** Intervals that begin with an hour or day of the clock; the last one is not over. */
function intervals(window) {
  const bucket = BUCKETS[window] ?? "1h", length = span(bucket);
  const shift = length < 3_600_000 ? 0 : behind(present());
  const end = (Math.floor((present() - shift) / length) + 1) * length + shift;
  const from = end - Math.ceil(span(window) / length) * length;
  return { since: new Date(from).toISOString(), until: new Date(end).toISOString(), bucket };
}

async function load(window, project, signal) {
  const since = `-${window}`, more = project ? { project } : {};
  const chart = { ...intervals(window), by: "ended", limit: 1000, ...more };
  const quiet = (promise, other) => promise.catch(() => other);
  const [running, ended, through, usual, bad, errors, sessions, volume] = await Promise.all([
    api.listJobs({ status: "running", root: 1, limit: 30, ...more }, signal),
    api.request("statistics/operations", { since, by: "ended", limit: 200, ...more }, { signal }),
    api.request("statistics/throughput", chart, { signal }),
    quiet(api.request("statistics/operations", { since: "-28d", limit: 500, ...more }, { signal }), []),
    api.listJobs({ status: "failed,crashed", since, limit: 8, ...more }, signal),
    quiet(api.listErrors({ status: "regressed", since: "-7d", limit: 5 }, signal), []),
    quiet(api.listSessions({ live: 1, limit: 100 }, signal), []),
    quiet(api.request("statistics/volume", { since, ...more }, { signal }), null),
  ]);
  const any = running.items.length || ended.length || bad.items.length || (await quiet(api.listJobs({ limit: 1 }, signal), { items: [1] })).items.length;
  const named = ended.slice(0, 12).map((one) => one.operation);
  const trends = new Map(named.length ? (await quiet(api.request("statistics/trends", { ...chart, operation: named }, { signal }), [])).map((one) => [one.operation, one.p95_ms]) : []);
  return { running: running.items, ended, through, usual: new Map(usual.map((one) => [one.operation, one])), bad, errors, sessions, volume, trends, none: !any };
}

export default function Overview({ query }) {
  const window = span(query.get("window")) ? query.get("window") : "24h";
  const { data, error, took: ms, reload } = useData((signal) => load(window, query.get("project"), signal), [window, query.get("project")]);
  const [hover, setHover] = useState(null);
  const [at, setAt] = usePlace("item", -1);
  useChanges("jobs", reload);
  // What needs attention, then what runs: j and k go through both, Enter opens.
  const listed = () => ["line-item", "run-item"].flatMap((name) => [...document.querySelectorAll(`main a.${name}`)]);
  useEffect(() => { if (at >= 0) listed()[at]?.focus(); }, [Boolean(data)]);
  const move = (by) => { const items = listed(); if (!items.length) return false; const to = Math.max(0, Math.min(items.length - 1, at + by)); setAt(to); items[to].focus(); return true; };
  usePage({
    title: "", keys: [["j k", "needs attention"], ["⏎", "open"], ["/", "search"], ["J", "jobs"], ["L", "logs"], ["R", "errors"]],
    facts: data ? `${plural(data.sessions.length, "live session")} · answered in ${count(ms)}\u202fms` : "", on: { r: () => reload(), j: () => move(1), k: () => move(-1) },
  });
  if (!data) return error ? html`<${Failed} error=${error} retry=${reload} />` : null;
  if (data.none) return html`<${FirstRun} />`;
  const all = data.ended.reduce((out, one) => { for (const key of ["completed", "failed", "crashed", "cancelled"]) out[key] += one[key]; return out; }, { completed: 0, failed: 0, crashed: 0, cancelled: 0 });
  const ended = all.completed + all.failed + all.crashed + all.cancelled;
  const judged = all.completed + all.failed + all.crashed;
  const since = `-${window}`;
  const errorLines = (data.volume?.by_level?.error ?? 0) + (data.volume?.by_level?.critical ?? 0);
  const silent = data.sessions.filter((one) => one.status === "silent");
  const attention = [
    ...data.bad.items.map((job) => ({ to: href("jobs", job.external_job_id || job.id), glyph: job.status, name: job.operation, what: job.description ?? "", loud: job.status === "crashed" ? "process died" : job.error?.type, rest: job.error?.message, time: job.completed_at ?? job.created_at })),
    ...data.errors.map((group) => ({ to: href("errors", group.fingerprint), glyph: "regressed", name: group.error.type, what: "", loud: `regressed, ${count(group.count)}×`, rest: group.resolved_by ? `resolved by ${group.resolved_by}` : "", time: group.last_seen })),
    ...silent.map((one) => ({ to: href("sessions", one.session_id), glyph: "silent", name: `${one.service ?? one.pid}@${one.host}`, what: "", loud: "silent", rest: "", time: one.heartbeat_at })),
  ].sort((a, b) => (b.time > a.time ? 1 : -1));
  const title = hover ?? null;
  return html`<div class="scroll" tabindex="-1"><div class="figures">
      <div><${Fig} n=${data.running.length} name="running" to=${href("jobs", "", { status: "running" })} color=${data.running.length ? "accent" : ""} /></div>
      <div><${Fig} n=${ended} name=${`ended in ${spanText(window)}`} to=${href("jobs", "", { since, root: 0 })} /><span class="op">=</span><${Fig} n=${all.completed} more=${judged ? percent((100 * all.completed) / judged, 1) : ""} name="completed" to=${href("jobs", "", { since, status: "completed", root: 0 })} />
        <span class="op">+</span><${Fig} n=${all.failed} name="failed" color=${all.failed ? "err" : ""} to=${href("jobs", "", { since, status: "failed", root: 0 })} /><span class="op">+</span><${Fig} n=${all.crashed} name="crashed" color=${all.crashed ? "err" : ""} to=${href("jobs", "", { since, status: "crashed", root: 0 })} />
        <span class="op">+</span><${Fig} n=${all.cancelled} name="cancelled" to=${href("jobs", "", { since, status: "cancelled", root: 0 })} /></div>
      ${data.volume && html`<div><${Fig} n=${data.volume.total} name=${`lines stored in ${spanText(window)}`} to=${href("logs", "", { since })} /><${Fig} n=${errorLines} color=${errorLines ? "err" : ""} name="error lines" to=${href("logs", "", { since, level: "error" })} /></div>`}</div>
    <div class=${`halves ${data.running.length ? "" : "idle"}`}><section><h2>Running now <small>${data.running.length ? plural(data.running.length, "root job") : "nothing runs"}</small></h2>
        ${data.running.slice(0, 8).map((job) => html`<${Running} key=${job.id} job=${job} usual=${data.usual.get(job.operation)} />`)}</section>
      <section><h2>Needs attention <small>${attention.length ? count(attention.length - data.bad.items.length + all.failed + all.crashed) : "nothing"}</small>${data.bad.next_cursor && html`<a class="right link" href=${href("jobs", "", { since, status: "failed,crashed", root: 0 })}>all ${count(all.failed + all.crashed)} failed jobs</a>`}</h2>${attention.slice(0, 8).map((one) => html`<a class="line-item" href=${one.to}><${Glyph} of=${one.glyph} /><span class="cut"><b>${one.name}</b> <span class="ink2">${one.what}</span> <span class=${one.glyph === "silent" ? "warn" : "err"}>${one.loud}</span> <span class="ink2">${brief(one.rest ?? "", 90)}</span></span><span class="r">${rough(present() - new Date(one.time))}</span></a>`)}</section></div>
    <div class="through"><div class="chart-title">Jobs by ${(BUCKETS[window] ?? "1h") === "1h" ? "the hour" : spanText(BUCKETS[window])} <small class="wide">completed above the line; below it, each failed <${Glyph} of="failed" label="" />, crashed <${Glyph} of="crashed" label="" /> and cancelled <${Glyph} of="cancelled" label="" /> job is one mark</small>
        <span class="right">${title ? html`<b>${hour(title.start)}–${hour(title.end)}</b> ${count(title.completed)} completed${title.failed > 0 && html` <span class="err">${count(title.failed)} failed</span>`}${title.crashed > 0 && html` <span class="err">${count(title.crashed)} crashed</span>`}` : ""}</span></div>
      <${Throughput} data=${data.through} hover=${hover} onHover=${setHover} onChoose=${(one) => go(href("jobs", "", { since: one.start, until: one.end, root: 0 }))} /></div>
    <div class="tbl-pad"><table class="tbl ops" aria-label="operations"><colgroup><col class="c-op" /><col class="c-n" /><col class="c-n wide" /><col class="c-n" /><col class="c-d wide" /><col class="c-d" /><col class="c-d wide" /><col class="wide" /><col class="c-note wide" /><col class="c-now" /></colgroup>
      <thead><tr><th scope="col">Operation</th><th scope="col" class="r">Ended ↓</th><th scope="col" class="r wide">Completed</th><th scope="col" class="r">Failed</th><th scope="col" class="r wide">p50</th><th scope="col" class="r">p95</th><th scope="col" class="r wide">p99</th><th scope="col" class="wide">p95 over ${spanText(window)}, dashed: median of 4 weeks</th><th scope="col" class="wide"></th><th scope="col" class="r">Now</th></tr></thead>
      <tbody>${data.ended.map((one) => {
        const usual = data.usual.get(one.operation);
        const before = (usual?.completed ?? 0) - one.completed; // runs to compare with
        const ratio = before >= 5 && usual.p95_ms && one.p95_ms ? one.p95_ms / usual.p95_ms : null;
        const slow = ratio !== null && ratio > 1.5;
        const running = data.running.filter((job) => job.operation === one.operation).length;
        return html`<tr key=${one.operation}><td class="name"><a href=${href("jobs", "", { operation: one.operation, since })}>${one.operation}</a></td><td class="r">${count(one.completed + one.failed + one.crashed + one.cancelled)}</td><td class="r wide">${percent(one.success_rate, 1)}</td>
          <td class="r">${one.crashed > 0 && html`<${Glyph} of="crashed" /> `}${one.failed + one.crashed ? html`<a class="err" href=${href("jobs", "", { operation: one.operation, since, status: "failed,crashed", root: 0 })}>${count(one.failed + one.crashed)}</a>` : html`<span class="dim">0</span>`}</td>
          <td class="r ink2 wide">${duration(one.p50_ms)}</td><td class=${`r ${slow ? "warn" : ""}`}><b>${duration(one.p95_ms)}</b></td><td class="r ink2 wide">${duration(one.p99_ms)}</td>
          <td class="wide"><${Line} values=${data.trends.get(one.operation) ?? []} median=${before >= 5 ? usual.p95_ms : null} warn=${slow} /></td><td class=${`wide ${slow ? "warn" : "ink2"}`}>${slow ? html`<${Glyph} of="slower" /> ${ratio.toFixed(1)}× usual` : ratio === null ? "" : "as usual"}</td>
          <td class="r">${running ? html`<a class="accent" href=${href("jobs", "", { operation: one.operation, status: "running" })}><${Glyph} of="running" /> ${count(running)}</a>` : html`<span class="dim">–</span>`}</td></tr>`;
      })}</tbody></table></div></div>`;
}

const Fig = ({ n, name, color = "", more, to }) => html`<a class="fig" href=${to}><b class=${color}>${count(n)}${more && html` <small>${more}</small>`}</b> <span>${name}</span></a>`;

function Running({ job, usual }) {
  const ms = took(job);
  const left = usual?.p50_ms ? usual.p50_ms - ms : null;
  return html`<a class="run-item" href=${href("jobs", job.external_job_id || job.id)}><${Glyph} of="running" /><b class="cut">${job.operation}</b><span class="ink2 cut wide">${[job.description, job.current_step].filter(Boolean).join(" · ")}</span>
    ${job.percent_complete != null ? html`<${Progress} percent=${job.percent_complete} />` : html`<span></span>`}<span class="r">${job.percent_complete != null ? percent(job.percent_complete) : ""}</span><span class="r wide">${duration(ms)}</span>
    <span class="r wide ${usual?.p95_ms && ms > usual.p95_ms ? "warn" : "ink2"}">${usual?.p95_ms && ms > usual.p95_ms ? html`<${Glyph} of="slower" /> ${(ms / usual.p50_ms).toFixed(1)}× usual` : left > 0 ? `≈ ${rough(left)} left` : ""}</span></a>`;
}

// One error: how often, since when, its traceback, its jobs, and the lines around it.

import { Copy, Glyph, Segments, html, live, useData, useEffect, useRef, useState, usePage } from "../ui.js";
import { ago, clock, count, day, full, present, rough, when, zone } from "../format.js";
import { api, apiUrl, href, permanent } from "../route.js";
import { DayBars } from "../charts.js";
import { ErrorTag, daysOf, glyphOf, messageOf, tracebackOf, typeOf } from "./errors.js";
import { HIDDEN, SAID } from "../logs-text.js";
import { Failed } from "./common.js";
import { Traceback } from "./traceback.js";
import "../logs.js";

async function load(id, signal) {
  const { group, first, newest } = await api.getError(id, signal);
  const quiet = (promise, other) => promise.catch(() => other);
  const ids = [...new Set(newest.map((line) => line.job_id).filter(Boolean))].slice(0, 8);
  const [jobs, days] = await Promise.all([
    Promise.all(ids.map((one) => quiet(api.getJob(one, { events: 0 }, signal), null))),
    quiet(daysOf(group.fingerprint, signal), null),
  ]);
  return { group, first, newest, jobs: jobs.filter(Boolean).map((one) => one.job), days };
}

export default function ErrorPage({ id }) {
  const { data, error, reload } = useData((signal) => load(id, signal), [id]);
  const [sample, setSample] = useState("newest");
  const [mode, setMode] = useState("yours");
  const [problem, setProblem] = useState("");
  const viewer = useRef(null);
  const group = data?.group;
  const line = sample === "first" ? data?.first : data?.newest[0];
  const change = async () => { try { await (group.status === "resolved" ? api.reopenError(group.fingerprint) : api.resolveError(group.fingerprint)); setProblem(""); reload(); } catch (failed) { setProblem(failed.message); } };
  usePage({ title: group ? typeOf(group) : "Error", keys: [["j k", "line"], ["x", group?.status === "resolved" ? "reopen" : "resolve"], ["L", "logs"], ["y", "copy link"]], facts: group ? `fingerprint ${group.fingerprint}` : "", on: { x: () => { if (!group) return false; change(); return true; }, "[": () => setSample("newest"), "]": () => setSample("first") } });
  useEffect(() => {
    live.value = { kind: "ended", text: "not live" };
    if (!viewer.current || !line) return;
    viewer.current.client = api;
    viewer.current.startAt({ at: `${line.session_id}:${line.seq}` });
    viewer.current.filter = line.job_id ? { job: line.job_id } : { session_id: line.session_id };
  }, [data, sample]);
  if (error && !data) return error.status === 404 ? html`<div class="state big"><h1>No error has the fingerprint <span class="mono">${id}</span></h1><p>${error.message}</p><a class="btn" href=${href("errors")}>All errors</a></div>` : html`<${Failed} error=${error} retry=${reload} />`;
  if (!data) return null;
  const text = line?.attrs?.exception?.traceback ?? (sample === "newest" ? tracebackOf(group) : null);
  const outcome = data.jobs.reduce((out, job) => ({ ...out, [job.status]: (out[job.status] ?? 0) + 1 }), {});
  return html`<div class="head"><div class="grow"><h1><${Glyph} of=${glyphOf(group)} label=${group.status} /><b>${typeOf(group)}</b><${ErrorTag} group=${group} /></h1><p class="mono">${messageOf(group)}</p></div>
      <div class="acts"><button type="button" class="btn primary" onClick=${change}>${group.status === "resolved" ? "Reopen" : "Resolve"} <kbd>x</kbd></button><span class="wide"><${Copy} className="btn" text=${permanent}>Copy link <kbd>y</kbd><//></span><a class="btn quiet wide" href=${apiUrl(`errors/${group.fingerprint}`)} target="_blank" rel="noreferrer">JSON</a></div></div>
    ${problem && html`<p class="bar err" role="alert">${problem}</p>`}
    <div class="errsum"><dl class="kv"><dt>times</dt><dd><a href=${href("logs", "", { fingerprint: group.fingerprint })}><b class="big">${count(group.count)}</b></a></dd><dt>jobs</dt><dd>${count(group.jobs)}${group.operation ? html` <span class="ink2">of ${group.operation}</span>` : ""}</dd><dt>first seen</dt><dd title=${full(group.first_seen)}>${when(group.first_seen)}</dd><dt>last seen</dt><dd title=${full(group.last_seen)}>${ago(group.last_seen)}</dd></dl>
      ${data.days && html`<figure class="wide"><${DayBars} counts=${data.days} width=${900} height=${76} bad=${group.status !== "resolved"} /><span class="most dim">${count(Math.max(...data.days))} a day at most</span><figcaption class="dim"><span>${day(present() - 27 * 86_400_000)}</span><span>occurrences per day</span><span>${day(present())}</span></figcaption></figure>`}</div>
    <div class="job-body"><div class="job-main"><div class="tabs"><button type="button" aria-pressed=${String(sample === "newest")} onClick=${() => setSample("newest")}>Newest <small>${when(data.newest[0]?.ts)}</small></button>${data.first && html`<button type="button" aria-pressed=${String(sample === "first")} onClick=${() => setSample("first")}>First <small>${when(data.first.ts)}</small></button>`}<span class="grow"></span>
        <span class="views"><${Segments} label="frames" value=${mode} onChoose=${setMode} items=${[["yours", "Yours"], ["all", "All"], ["raw", "Raw"]]} /></span></div>
      <div class="tb well" tabindex="-1">${text ? html`<${Traceback} text=${text} mode=${mode} />` : html`<span class="dim">No traceback was recorded.</span>`}</div>
      <div class="logbar"><b>Log lines around it</b><span class="dim cut">${line?.operation ?? ""} ${line?.step ?? ""} · all levels</span><span class="grow"></span>${line && html`<a class="btn quiet" href=${line.job_id ? href("jobs", line.job_id, { at: `${line.session_id}:${line.seq}` }) : href("logs", "", { at: `${line.session_id}:${line.seq}` })}>open in its ${line.job_id ? "job" : "log"}</a>`}</div>
      <structjob-logs ref=${viewer}></structjob-logs></div>
      <aside class="side shown" aria-label="details" tabindex="-1"><section><h2>Jobs <span>${count(group.jobs)}</span></h2>${data.jobs.map((job) => html`<a class="line-item" href=${href("jobs", job.external_job_id || job.id)}><${Glyph} of=${job.status} /><span class="cut"><b>${job.operation}</b> <span class="ink2">${job.description ?? ""}</span></span><span class="r">${rough(present() - new Date(job.created_at))}</span></a>`)}</section>
        ${data.jobs.length > 0 && html`<section><h2>Outcome of the newest jobs</h2><p>${Object.entries(outcome).map(([status, n], i) => html`${i > 0 ? " · " : ""}<b>${count(n)}</b> <span class=${status === "failed" || status === "crashed" ? "err" : "ink2"}>${status}</span>`)}</p>${group.outcome && html`<p class="dim">${group.outcome === "recovered" ? "jobs went on after it, most often by a retry" : "it ended a job"}</p>`}</section>`}
        <${Values} lines=${data.newest} />
        <section><h2>Group</h2><dl class="kv"><dt>fingerprint</dt><dd class="mono">${group.fingerprint}</dd><dd class="copycell"><${Copy} text=${group.fingerprint} label="copy the fingerprint" /></dd><dt>grouped by</dt><dd>type, message, place in the code</dd><dt>first</dt><dd title=${full(group.first_seen)}>${day(group.first_seen)} ${clock(group.first_seen)} ${zone(group.first_seen)}</dd><dt>last</dt><dd title=${full(group.last_seen)}>${day(group.last_seen)} ${clock(group.last_seen)} ${zone(group.last_seen)}</dd></dl></section></aside></div>`;
}

/** How the attributes of the newest occurrences are spread. */
function Values({ lines }) {
  const names = new Map();
  for (const line of lines) for (const [key, value] of Object.entries(line.attrs ?? {})) {
    if (HIDDEN.has(key) || SAID.has(key) || typeof value === "object") continue;
    const values = names.get(key) ?? new Map();
    values.set(String(value), (values.get(String(value)) ?? 0) + 1);
    names.set(key, values);
  }
  return html`${[...names].slice(0, 4).map(([key, values]) => html`<section key=${key}><h2>${key}<span>of the newest ${count(lines.length)}</span></h2>${[...values].sort((a, b) => b[1] - a[1]).slice(0, 4).map(([value, n]) => html`<div class="spread"><span class="mono cut">${value}</span><svg height="8" width="130" aria-hidden="true"><rect class="b-off" width=${(130 * n) / lines.length} height="8" /></svg><span class="r">${count(n)}</span></div>`)}</section>`)}`;
}

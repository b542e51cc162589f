// What few visits of a job's page need: tree and flat view, cancelling, an id that no job has.

import { Dialog, Glyph, html, live, useData, useEffect, useState, usePage } from "../ui.js";
import { ago, clock, plural, spent } from "../format.js";
import { api, go, href } from "../route.js";

export function Cancel({ job, onClose, reload }) {
  const [reason, setReason] = useState("");
  const [error, setError] = useState(null);
  const submit = async (event) => {
    event.preventDefault();
    try { await api.cancelJob(job.id, reason ? { reason } : {}); onClose(); reload(); } catch (failed) { setError(failed); }
  };
  return html`<${Dialog} className="ask" label="Cancel the job" onClose=${onClose}><form onSubmit=${submit}><b>Cancel ${job.operation}?</b><p class="ink2">The job is asked to stop; its cleanup runs. Its child jobs are cancelled too.</p>
    <label class="field"><span class="visually-hidden">reason</span><input placeholder="reason" value=${reason} onInput=${(event) => setReason(event.target.value)} autofocus /></label>
    ${error && html`<p class="err" role="alert">${error.message}</p>`}<footer><button type="button" class="btn quiet" onClick=${onClose}>Keep it running</button><button type="submit" class="btn danger">Cancel the job</button></footer></form><//>`;
}

export function NotFound({ id, reload }) {
  useEffect(() => { // a link may be older than its job
    live.value = { kind: "waiting", text: "waiting for it" };
    const timer = setInterval(() => { if (!document.hidden) api.listAttemptsOfJob(id).then(reload, () => {}); }, 5000);
    return () => clearInterval(timer);
  }, [id]);
  const { data } = useData((signal) => api.listJobs({ limit: 300 }, signal), [id]);
  const near = (data?.items ?? []).filter((job) => job.external_job_id).map((job) => [distance(id, job.external_job_id), job]).filter(([far]) => far <= 2).sort((a, b) => a[0] - b[0]).slice(0, 5).map(([, job]) => job);
  usePage({ title: `No job ${id}`, keys: [["/", "search"], ["J", "jobs"]], facts: "404", on: { Enter: () => { if (!near[0]) return false; go(href("jobs", near[0].external_job_id)); return true; } } });
  return html`<div class="state big"><h1>No job has the id <span class="mono">${id}</span></h1><p>No match as job id, external id or context id.${near.length ? " Similar ids:" : ""}</p>
    ${near.length > 0 && html`<div class="near">${near.map((job) => html`<a href=${href("jobs", job.external_job_id)}><${Glyph} of=${job.status} /><b>${job.operation}</b><span class="mono">${job.external_job_id}</span><span class="cut ink2">${job.description ?? ""}</span><span class="ink2">${job.status === "running" ? "running" : ago(job.created_at)}</span></a>`)}</div>`}
    <p>It may also have been deleted: <a class="link" href=${href("storage")}>retention</a>.</p></div>`;
}

/** How many letters are to be changed, added or taken, or swapped with the next one. */
function distance(a, b) {
  if (Math.abs(a.length - b.length) > 2) return 9;
  const rows = [Array.from({ length: b.length + 1 }, (_, i) => i)];
  for (let i = 1; i <= a.length; i += 1) {
    rows[i] = [i];
    for (let j = 1; j <= b.length; j += 1) {
      rows[i][j] = Math.min(rows[i - 1][j] + 1, rows[i][j - 1] + 1, rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) rows[i][j] = Math.min(rows[i][j], rows[i - 2][j - 2] + 1);
    }
  }
  return rows[a.length][b.length];
}

/** Steps without bars: the tree with words, or all steps, the longest first. */
export function StepTable({ nodes, flat, current, onSelect }) {
  const all = [];
  const visit = (list, depth) => list.forEach((node) => { for (const one of node.kind === "group" ? node.all : [node]) all.push({ node: one, depth: flat ? 0 : depth }); if (node.kind !== "group") visit(node.kids, depth + 1); });
  visit(nodes, 0);
  if (flat) all.sort((a, b) => (b.node.took ?? 0) - (a.node.took ?? 0));
  const rows = all.slice(0, 1000);
  return html`<div class="wf"><table class="tbl" aria-label="steps"><thead><tr><th scope="col">Step</th><th scope="col">Status</th><th scope="col" class="r">Started</th><th scope="col" class="r">Took ${flat ? "↓" : ""}</th><th scope="col">Detail</th></tr></thead>
    <tbody>${rows.map(({ node, depth }) => html`<tr key=${node.id} class=${current === node.id ? "cur" : ""} onClick=${() => onSelect(node)}><td><div class="job">${Array.from({ length: depth }, () => html`<span class="twisty"></span>`)}<${Glyph} of=${node.status} label="" /> <span class="nm">${node.name}</span>${node.kind === "job" && html`<a class="tag" href=${href("jobs", node.record.id)}>job</a>`}</div></td>
      <td>${node.status}</td><td class="r">${node.start ? clock(node.start) : "–"}</td><td class="r">${spent(node.took, node.status)}</td><td class="ink2">${node.record?.error ? `${node.record.error.type}: ${node.record.error.message}` : node.record?.total ? `${node.record.completed ?? 0} of ${node.record.total}` : ""}</td></tr>`)}</tbody></table>
    ${all.length > rows.length && html`<p class="bar dim">${plural(all.length - rows.length, "more step")}</p>`}</div>`;
}

// What several pages need: durations, problems, menus, a database without jobs.

import { html, now, useEffect } from "../ui.js";
import { apiUrl, permanent } from "../route.js";

/** How long a job took, or has taken; null if it has not begun. */
export function took(job) {
  if (job.duration_ms != null) return job.duration_ms;
  if (!job.started_at) return null;
  return job.status === "running" ? now.value - new Date(job.started_at) : job.completed_at ? new Date(job.completed_at) - new Date(job.started_at) : null;
}

export function CurlItem({ path, params: given }) {
  return html`<button type="button" onClick=${() => navigator.clipboard?.writeText(`curl -s '${apiUrl(path, given)}'`)}>Copy as curl</button><button type="button" onClick=${() => navigator.clipboard?.writeText(permanent())}>Copy link</button>`;
}

export function Failed({ error, retry }) {
  useEffect(() => { dispatchEvent(new CustomEvent("structjob-report", { detail: { error, retry } })); }, [error]);
  return html`<div class="state"><h1>${error.status === 400 ? "The server does not take this filter" : "This could not be read"}</h1><p>${error.message}${error.hint ? ` ${error.hint}` : ""}</p><button type="button" class="btn" onClick=${retry}>Try again</button></div>`;
}

export function FirstRun() {
  const code = 'async with structjob.Tracker("sqlite:///structjob.db") as tracker:\n    async with tracker.job("vm-migrate", external_job_id="gui-17"):\n        async with structjob.step("copy", total=3) as step:\n            async for part in step.track(["a", "b", "c"]):\n                log.info("part copied", part=part)  # on disk when it returns';
  return html`<div class="state big"><h1>No jobs in this database yet</h1><p>The first job will appear here without a reload.</p><ol>
    <li>See it work, with real files, one retry and one failure:<pre class="code">structjob demo</pre></li>
    <li>Make any program a job:<pre class="code">structjob run -- rsync -a /srv/photos backup:/srv</pre></li>
    <li>Or track your own code:<pre class="code">${code}</pre></li></ol></div>`;
}

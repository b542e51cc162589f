// What several pages need: durations, problems, menus.

import { AGAIN, copy, footer, html, now, useEffect } from "../ui.js";
import { sentence } from "../format.js";
import { apiUrl, permanent } from "../route.js";

/** How long a job took, or has taken; null if it has not begun. */
export function took(job) {
  if (job.duration_ms != null) return job.duration_ms;
  if (!job.started_at) return null;
  return job.status === "running" ? now.value - new Date(job.started_at) : job.completed_at ? new Date(job.completed_at) - new Date(job.started_at) : null;
}

export function CurlItem({ path, params: given }) {
  return html`<button type="button" onClick=${() => copy(`curl -s '${apiUrl(path, given)}'`)}>Copy as curl</button><button type="button" onClick=${() => copy(permanent())}>Copy link</button>`;
}

export function Failed({ error, retry }) {
  useEffect(() => { footer.value = { keys: [], facts: "" }; }, []);
  return html`<div class="state"><h1>${error.status === 400 ? "The server does not take this filter" : "This could not be read"}</h1><p>${sentence(error.message)}${error.final ? "" : ` It is read again every ${AGAIN / 1000} seconds.`}</p><button type="button" class="btn" onClick=${retry}>Try again</button></div>`;
}

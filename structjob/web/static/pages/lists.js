// What the overview and the lists need: changes as they come, a database without jobs.

import { html, showState, useEffect, useRef } from "../ui.js";
import { api } from "../route.js";

const OFTEN = 2000, POLLED = 5000, SELDOM = 30_000;

/** Call *changed* when rows of a channel ("jobs", "sessions") change, at most every 2 seconds; and
 *  now and then, for what no row tells. The badge shows how the stream is. */
export function useChanges(channel, changed) {
  const latest = useRef(changed);
  latest.current = changed;
  useEffect(() => {
    let called = Date.now(), soon = 0, first = true;
    const call = () => { soon = 0; called = Date.now(); if (!document.hidden) latest.current(); };
    const stream = api.stream({ channels: [channel] }, {
      onRows: () => { if (!first && !soon) soon = setTimeout(call, Math.max(200, called + OFTEN - Date.now())); first = false; },
      onState: (state, transport, retry) => showState({ state, transport, retry }),
    });
    const timer = setInterval(() => { if (Date.now() - called >= (stream.transport === "polling" || stream.state !== "live" ? POLLED : SELDOM)) call(); }, 1000);
    return () => { stream.close(); clearInterval(timer); clearTimeout(soon); };
  }, [channel]);
}

export function FirstRun() {
  const code = 'async with structjob.Tracker("sqlite:///structjob.db") as tracker:\n    async with tracker.job("vm-migrate", external_job_id="gui-17"):\n        async with structjob.step("copy", total=3) as step:\n            async for part in step.track(["a", "b", "c"]):\n                log.info("part copied", part=part)  # on disk when it returns';
  return html`<div class="state big"><h1>No jobs in this database yet</h1><p>The first job will appear here without a reload.</p><ol>
    <li>See it work, with real files, one retry and one failure:<pre class="code">structjob demo</pre></li>
    <li>Make any program a job:<pre class="code">structjob run -- rsync -a /srv/photos backup:/srv</pre></li>
    <li>Or track your own code:<pre class="code">${code}</pre></li></ol></div>`;
}

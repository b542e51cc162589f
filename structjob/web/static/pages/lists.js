// What the overview and the lists need: changes as they come, a database without jobs.

import { Copy, html, showState, useEffect, useRef, useState } from "../ui.js";
import { api, place } from "../route.js";

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

/** A state that is there again when one comes back to the page: the row of the cursor, what is unfolded. */
export function usePlace(name, start) {
  const [value, set] = useState(place.current[name] ?? start);
  place.current[name] = value;
  return [value, set];
}

/** What to type for a first job, in this very database where its name is one that can be typed. */
export function FirstRun({ what = "jobs" }) {
  const name = document.querySelector('meta[name="structjob-name"]')?.content ?? "";
  const shown = /^(\.?\/|[A-Z]:\\|\w+:\/\/[^[*]+$)/i.test(name) ? name : null;
  const command = shown ? `structjob --db ${/^[\w./:@%+-]+$/.test(shown) ? shown : `'${shown}'`}` : "structjob --db URL";
  const code = [ // line by line, because the server removes the indentation of scripts
    "import structjob, structlog",
    "",
    "structjob.configure()",
    "log = structlog.get_logger()",
    `with structjob.Tracker("${shown ?? "URL"}") as tracker, tracker.job("import") as job:`,
    '    with job.step("copy", total=3) as step:',
    '        for part in step.track(["a", "b", "c"]):',
    '            log.info("part copied", part=part)  # on disk when it returns',
  ].join("\n");
  const Code = ({ text }) => html`<div class="code"><pre class="code" tabindex="0">${text}</pre><${Copy} text=${text} /></div>`;
  return html`<div class="scroll" tabindex="-1"><div class="state big"><h1>No ${what} in this database yet</h1><p>${what === "jobs" ? "The first job will appear here without a reload." : "A program that opens a tracker stores them."}${shown ? "" : " URL stands for the address of this database."}</p><ol>
    <li>See it work, with real files, one retry and one failure:<${Code} text=${`${command} demo`} /></li>
    <li>Make any program a job:<${Code} text=${`${command} run -- rsync -a /srv/photos backup:/srv`} /></li>
    <li>Or track your own code:<${Code} text=${code} /></li></ol></div></div>`;
}

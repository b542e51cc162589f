// Errors, grouped: what is open, what came back.

import { Chip, Glyph, Segments, html, live, useData, useEffect, useRef, useState, usePage } from "../ui.js";
import { brief, count, day, daysAgo, full, present, plural, rough } from "../format.js";
import { api, go, href, setQuery } from "../route.js";
import { DayBars } from "../charts.js";
import { AddFilter } from "./filters.js";
import { Failed } from "./common.js";
import { usePlace } from "./lists.js";

const FIELDS = ["operation", "step", "project", "job"];
const DAYS = 28;
export const typeOf = (group) => group.error.type;
export const messageOf = (group) => group.error.message;
export const tracebackOf = (group) => group.error.traceback;

export const glyphOf = (group) => (group.status === "resolved" ? "completed" : group.status === "regressed" ? "regressed" : "failed");

export function ErrorTag({ group }) {
  if (group.status === "regressed") return html`<span class="tag regressed">regressed</span>`;
  if (group.status === "resolved") return html`<span class="tag">resolved ${group.resolved_at ? day(group.resolved_at) : ""}${group.resolved_by ? ` by ${group.resolved_by}` : ""}</span>`;
  return present() - new Date(group.first_seen) < 2 * 86_400_000 ? html`<span class="tag new">new</span>` : null;
}

/** Occurrences a day of a group, for its bars. */
function Days({ group }) {
  const [counts, setCounts] = useState(null);
  useEffect(() => {
    let mine = true;
    daysOf(group.fingerprint).then((found) => { if (mine) setCounts(found); }, () => {});
    return () => { mine = false; };
  }, [group.fingerprint, group.count]);
  return counts ? html`<${DayBars} counts=${counts} days=${DAYS} bad=${group.status !== "resolved"} />` : null;
}

/** How often an error occurred on each of the last `DAYS` days. */
export async function daysOf(fingerprint, signal) {
  const end = present();
  const { bars } = await api.countLogsByTime({ fingerprint, since: daysAgo(DAYS), until: daysAgo(0), buckets: DAYS }, signal);
  const out = new Array(DAYS).fill(0);
  for (const one of bars) {
    const n = Object.values(one.counts).reduce((a, b) => a + b, 0);
    const i = DAYS - 1 - Math.floor((end - (Date.parse(one.since) + Date.parse(one.until)) / 2) / 86_400_000);
    if (n) out[Math.max(0, Math.min(DAYS - 1, i))] += n;
  }
  return out;
}

export default function Errors({ query }) {
  const filters = Object.fromEntries([...query].filter(([name]) => !["status", "since", "until", "window"].includes(name)));
  const since = query.get("since") ?? "-28d", until = query.get("until");
  const { data, error, took: ms, reload } = useData((signal) => api.listErrors({ ...filters, since, until, limit: 1000 }, signal), [query.toString()]);
  const [at, setAt] = usePlace("error", 0);
  const [adding, setAdding] = useState(false);
  const body = useRef(null);
  const all = data ?? [];
  const status = query.get("status") ?? "";
  const isNew = (group) => group.status === "open" && present() - new Date(group.first_seen) < 2 * 86_400_000;
  const rank = { regressed: 0, open: 1, resolved: 2 };
  const shown = all.filter((group) => !status || (status === "new" ? isNew(group) : status.split(",").includes(group.status))).sort((a, b) => Number(a.status === "resolved") - Number(b.status === "resolved") || (b.last_seen > a.last_seen ? 1 : -1));
  const n = (test) => count(all.filter(test).length);
  const current = shown[Math.min(at, shown.length - 1)];
  useEffect(() => { if (data) live.value = { kind: "ended", text: "not live" }; }, [data]);
  useEffect(() => { body.current?.querySelector("tr.cur")?.scrollIntoView({ block: "nearest" }); }, [at, Boolean(data)]);
  const resolve = async () => { if (!current) return; await (current.status === "resolved" ? api.reopenError(current.fingerprint) : api.resolveError(current.fingerprint)); reload(); };
  const move = (by) => setAt(Math.max(0, Math.min(shown.length - 1, at + by)));
  usePage({
    title: "Errors", keys: [["j k", "move"], ["⏎", "open"], ["x", "resolve"], ["y", "copy link"]], facts: data ? `${plural(shown.length, "group")} · ${count(ms)}\u202fms` : "",
    on: { j: () => move(1), k: () => move(-1), ArrowDown: () => move(1), ArrowUp: () => move(-1), g: () => setAt(0), G: () => setAt(shown.length - 1), Enter: () => current && go(href("errors", current.fingerprint)), x: resolve, f: () => setAdding(true), r: reload },
  });
  if (error && !data) return html`<${Failed} error=${error} retry=${reload} />`;
  return html`<div class="bar"><${Segments} label="status" value=${status} onChoose=${(value) => setQuery({ status: value })} items=${[["", "All", data && count(all.length)], ["open", "Open", data && n((one) => one.status === "open")], ["regressed", "Regressed", data && n((one) => one.status === "regressed")], ["new", "New", data && n(isNew)], ["resolved", "Resolved", data && n((one) => one.status === "resolved")]]} />
      ${Object.entries(filters).map(([name, value]) => html`<${Chip} name=${name} value=${value} onRemove=${() => setQuery({ [name]: null })} />`)}<${AddFilter} open=${adding} setOpen=${setAdding} fields=${FIELDS} onAdd=${(name, value) => setQuery({ [name]: value })} /><span class="grow"></span><span class="dim wide">open first, then by last seen</span></div>
    ${data && !shown.length ? html`<div class="state"><h1>${all.length ? "No error group matches" : query.get("since") || until ? "No errors in this time" : "No errors in the last 28 days"}</h1><p>${all.length ? `${plural(all.length, "group")} without the filter of the status.` : "Errors of jobs and error lines are grouped here by type, message and place in the code."}</p>${all.length > 0 && html`<button type="button" class="btn" onClick=${() => setQuery({ status: null })}>Show all</button>`}</div>` : html`
    <div class="scroll" tabindex="-1"><div class="tbl-pad"><table class="tbl errs" aria-label="errors"><colgroup><col /><col class="c-where wide" /><col class="c-days wide" /><col class="c-n" /><col class="c-n wide" /><col class="c-day wide" /><col class="c-day" /></colgroup><thead><tr><th scope="col">Error</th><th scope="col" class="wide">Where</th><th scope="col" class="wide">Per day, 28 days</th><th scope="col" class="r">Times</th><th scope="col" class="r wide">Jobs</th><th scope="col" class="r wide">First</th><th scope="col" class="r">Last ↓</th></tr></thead>
      <tbody ref=${body}>${shown.map((group, i) => html`<tr key=${group.fingerprint} class=${`two ${i === at ? "cur" : ""}`} onClick=${() => setAt(i)}><td><div class="cut"><${Glyph} of=${glyphOf(group)} label=${group.status} /> <a class="strong" href=${href("errors", group.fingerprint)}>${typeOf(group)}</a><${ErrorTag} group=${group} /></div><div class="mono cut ink2 under">${brief(messageOf(group).split("\n")[0], 200)}</div></td>
        <td class="wide ink2">${[group.operation, group.step].filter(Boolean).join(" › ")}</td><td class="wide"><${Days} group=${group} /></td><td class="r"><a class="strong" href=${href("logs", "", { fingerprint: group.fingerprint })}>${count(group.count)}</a></td><td class="r wide ink2">${count(group.jobs)}</td><td class="r wide ink2" title=${full(group.first_seen)}>${day(group.first_seen)}</td><td class="r" title=${full(group.last_seen)}>${rough(present() - new Date(group.last_seen))}</td></tr>`)}</tbody></table></div></div>`}`;
}

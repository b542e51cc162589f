// What the tables take, and what of it is due to go.

import { html, live, useData, useEffect, useState, usePage } from "../ui.js";
import { bytes, count, percent } from "../format.js";
import { api, href } from "../route.js";
import { Failed } from "./common.js";

async function load(signal) {
  const quiet = (promise) => promise.catch(() => null);
  const [storage, volume, week] = await Promise.all([api.request("storage", {}, { signal }), quiet(api.request("statistics/volume", {}, { signal })), quiet(api.request("statistics/volume", { since: "-7d" }, { signal }))]);
  return { storage, volume, week };
}

export default function Storage() {
  const { data, error, took, reload, slow } = useData(load, []);
  const [days, setDays] = useState("90");
  const [due, setDue] = useState(null);
  const [problem, setProblem] = useState("");
  useEffect(() => { live.value = { kind: "ended", text: "not live" }; }, []);
  usePage({ title: "Storage", keys: [["o", "overview"]], facts: data ? `counted in ${count(took)}\u202fms` : slow ? "counting rows" : "", on: { r: reload } });
  if (error && !data) return html`<${Failed} error=${error} retry=${reload} />`;
  if (!data) return html`<p class="bar dim">${slow ? "counting rows" : ""}</p>`;
  const { storage, volume, week } = data;
  const most = Math.max(1, ...storage.tables.map((one) => one.bytes ?? one.rows));
  const prune = async (dry) => {
    setProblem("");
    try {
      const answer = await (dry ? api.request("retention", { days }) : api.request("retention/prune", {}, { method: "POST", body: { days: Number(days), dry_run: false } }));
      setDue({ answer, dry, days });
      if (!dry) reload();
    } catch (failed) { setProblem(failed.message); }
  };
  return html`<div class="scroll" tabindex="-1"><div class="figures"><div><div class="fig"><b>${bytes(storage.bytes)}</b><span>all tables, with indexes</span></div></div>${volume && html`<div><a class="fig" href=${href("logs")}><b>${count(volume.total)}</b><span>lines stored</span></a></div>`}${week && html`<div><a class="fig" href=${href("logs", "", { since: "-7d" })}><b>${count(week.total)}</b><span>lines of the last 7 days</span></a>${storage.bytes && volume?.total > 0 && html`<span class="op">≈</span><div class="fig"><b>${bytes((storage.bytes * week.total) / volume.total / 7)}</b><span>growth a day</span></div>`}</div>`}</div>
    <div class="halves"><section><h2>Tables <small>rows and bytes</small></h2><table class="tbl stor" aria-label="tables"><colgroup><col /><col class="c-n" /><col class="c-n" /><col class="c-bar wide" /></colgroup><thead><tr><th scope="col">Table</th><th scope="col" class="r">Rows</th><th scope="col" class="r">Bytes ↓</th><th scope="col" class="wide">Share</th></tr></thead><tbody>${storage.tables.map((one) => html`<tr key=${one.table}><td class="mono">${one.table}</td><td class="r">${count(one.rows)}</td><td class="r">${bytes(one.bytes)}</td><td class="wide"><svg width="120" height="8" aria-hidden="true"><rect class="h-other" width=${Math.max(1, (120 * (one.bytes ?? one.rows)) / most)} height="8" /></svg> <span class="dim">${storage.bytes ? percent((100 * (one.bytes ?? 0)) / storage.bytes) : ""}</span></td></tr>`)}</tbody></table></section>
      <section><h2>Lines <small>${volume?.total === 0 ? "none are stored yet" : "by level, category and type"}</small></h2>${volume?.total > 0 && [["level", volume.by_level], ["category", volume.by_category], ["type", volume.by_type]].map(([name, of]) => html`<${Split} name=${name} of=${of} total=${volume.total} />`)}</section></div>
    <section class="retain"><h2>Retention</h2><p class="ink2">Nothing is deleted automatically unless the application configures it. Pending and running jobs are never deleted.</p>
      <form class="retain-form" onSubmit=${(event) => { event.preventDefault(); prune(true); }}><label>Jobs and lines older than <span class="field"><input size="5" inputmode="numeric" value=${days} onInput=${(event) => { setDays(event.target.value); setDue(null); }} /></span> days</label><button type="submit" class="btn">Preview</button>${due?.dry && html`<button type="button" class="btn danger" onClick=${() => prune(false)}>Delete for good</button>`}</form>
      ${problem && html`<p class="err" role="alert">${problem}</p>`}${due && html`<p>${due.dry ? "Would delete" : "Deleted"} ${Object.entries(due.answer).filter(([, value]) => typeof value === "number").map(([key, value]) => `${count(value)} ${key.replaceAll("_", " ")}`).join(", ") || "nothing"}.</p>`}
      <p class="dim">On the command line: <code>structjob prune --older-than ${days}d --dry-run</code></p></section></div>`;
}

function Split({ name, of, total }) {
  const rows = Object.entries(of ?? {}).sort((a, b) => b[1] - a[1]).slice(0, 8);
  return html`<dl class="kv split-kv"><dt class="split-name">${`by ${name}`}</dt>${rows.map(([key, n]) => html`<dt>${key}</dt><dd><a href=${href("logs", "", name === "level" ? { levels: key } : { [name]: key })}>${count(n)}</a> <span class="dim">${total ? (n && n / total < 0.005 ? `<${"\u202f"}1${"\u202f"}%` : percent((100 * n) / total)) : ""}</span></dd>`)}</dl>`;
}

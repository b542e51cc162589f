// The two dialogs: all keys, and search.

import { Dialog, Glyph, Kbd, html, useEffect, useRef, useState } from "./ui.js";
import { ago, brief, count, finder, remember } from "./format.js";
import { api, go, href } from "./route.js";

const KEYS = [
  ["Move", [["next, previous row", "j k"], ["first, newest line", "g G"], ["next, previous error", "e E"], ["next, previous match", "n N"], ["previous, next step", "[ ]"], ["failed, slowest step", "F S"], ["open", "⏎"], ["unfold, fold", "→ ←"], ["close, back to the list", "Esc"]]],
  ["View", [["find in the lines", "/"], ["find as a filter", "Ctrl\u200a⏎"], ["add a filter", "f"], ["in context (lines), columns (jobs)", "c"], ["wrap", "w"], ["waterfall, tree, flat", "1 2 3"], ["UTC or your zone", "u"], ["live, resume", "r"], ["dark, light, system", "t"]]],
  ["Go to, copy, act", [["search everything", "Ctrl\u200aK"], ["overview", "o"], ["jobs", "J"], ["logs", "L"], ["errors", "R"], ["copy link to this line", "y"], ["select lines", "v j k"], ["how often it happened (job)", "x"], ["resolve (error)", "x"], ["this help", "?"]]],
];

export function Keys({ keysOff, onClose }) {
  const flip = () => { keysOff.value = !keysOff.value; remember("structjob-keys", keysOff.value ? "off" : "on"); };
  return html`<${Dialog} className="keys" label="Keys" onClose=${onClose}>
    <header><b>Keys</b><span class="ink2">${keysOff.value ? "are off" : "off while you type"}</span><button type="button" class="btn" onClick=${flip}>${keysOff.value ? "Turn keys on" : "Turn keys off"}</button><kbd>Esc</kbd></header>
    <div class="c3">${KEYS.map(([title, list]) => html`<section><h2>${title}</h2><ul>${list.map(([what, key]) => html`<li>${what}<span><${Kbd} k=${key} /></span></li>`)}</ul></section>`)}</div><//>`;
}

/** Text with the first occurrence of *found* marked. */
function Marked({ text, found }) {
  const { 0: hit, index } = finder(found)?.exec(text) ?? [];
  return hit ? html`${text.slice(0, index)}<mark>${hit}</mark>${text.slice(index + hit.length)}` : html`${text}`;
}

export function Search({ typed, onClose }) {
  const [text, setText] = useState(typed);
  const [found, setFound] = useState({ groups: [] });
  const [at, setAt] = useState(0);
  const box = useRef(null);
  useEffect(() => {
    const asked = text.trim();
    if (!asked) { setFound({ groups: [] }); return undefined; }
    const abort = new AbortController();
    const timer = setTimeout(async () => {
      const began = performance.now();
      const settle = (promise) => promise.catch(() => null);
      const [one, list, errors, lines] = await Promise.all([
        settle(api.getJob(asked, { events: 0 }, abort.signal)), settle(api.listJobs({ q: asked, limit: 5 }, abort.signal)),
        settle(api.listErrors({ limit: 200 }, abort.signal)), settle(api.listLogs({ q: asked, order: "desc", limit: 4, since: "-7d" }, abort.signal))]);
      if (abort.signal.aborted) return;
      const jobHit = (job) => ({ to: href("jobs", job.external_job_id || job.id), glyph: job.status, title: job.operation, text: [job.external_job_id || job.id, job.description].filter(Boolean).join(" "), time: job.created_at });
      const seen = new Set(one ? [one.job.id] : []);
      const low = asked.toLowerCase();
      const groups = [
        ["Job with this id", one ? [jobHit(one.job)] : []],
        ["Jobs", (list?.items ?? []).filter((job) => !seen.has(job.id)).map(jobHit)],
        ["Errors", (errors?.items ?? errors ?? []).filter((group) => `${group.error.type} ${group.error.message} ${group.fingerprint}`.toLowerCase().includes(low)).slice(0, 4)
          .map((group) => ({ to: href("errors", group.fingerprint), glyph: group.status === "resolved" ? "completed" : "failed", title: group.error.type, text: group.error.message, time: group.last_seen }))],
        ["Log lines of 7 days with this text", (lines?.items ?? []).map((line) => ({ to: href("logs", "", { at: `${line.session_id}:${line.seq}`, hl: asked }), title: line.logger || line.operation || line.kind, text: line.message, time: line.ts }))],
        ["Actions", [{ to: href("jobs", "", { q: asked }), title: "Jobs", text: `whose name or description has “${asked}”` }, { to: href("logs", "", { q: asked }), title: "Lines", text: `with the text “${asked}”` }]],
      ].filter(([, hits]) => hits.length);
      setFound({ groups, ms: performance.now() - began, asked });
      setAt(0);
    }, 120);
    return () => { clearTimeout(timer); abort.abort(); };
  }, [text]);
  const hits = found.groups.flatMap(([, list]) => list);
  const choose = (hit, tab) => { if (!hit) return; if (tab) open(hit.to, "_blank", "noopener"); else { onClose(); go(hit.to); } };
  const key = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); setAt((hits.length + at + (event.key === "ArrowDown" ? 1 : -1)) % (hits.length || 1)); }
    else if (event.key === "Enter") { event.preventDefault(); choose(hits[at], event.ctrlKey || event.metaKey); }
  };
  useEffect(() => { box.current?.querySelector('[aria-selected="true"]')?.scrollIntoView({ block: "nearest" }); }, [at]);
  let n = -1;
  return html`<${Dialog} className="find" label="Search" onClose=${onClose}>
    <div class="q"><input type="text" role="combobox" aria-expanded="true" aria-controls="hits" aria-label="search jobs, ids, errors, lines" aria-activedescendant=${hits.length ? `hit${at}` : undefined} placeholder="Search jobs, ids, errors, lines" value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${key} autofocus autocomplete="off" spellcheck=${false} />
      <span class="dim">${found.ms !== undefined && text ? `${count(found.ms)}\u202fms` : ""}</span></div>
    <div class="results" id="hits" role="listbox" aria-label="found" ref=${box}>${found.groups.map(([title, list]) => html`<div role="group" aria-label=${title}><h2 role="presentation">${title}<span>${list.length}</span></h2>
      ${list.map((hit) => { n += 1; const mine = n; return html`<div class="hit" role="option" id=${`hit${mine}`} aria-selected=${String(mine === at)} onClick=${() => choose(hit)} onMouseMove=${() => mine !== at && setAt(mine)}>
        ${hit.glyph ? html`<${Glyph} of=${hit.glyph} />` : html`<span></span>`}<b class="cut">${hit.title}</b><span class="cut"><${Marked} text=${brief(hit.text, 120)} found=${found.asked} /></span><span class="dim">${hit.time ? ago(hit.time) : ""}</span></div>`; })}</div>`)}</div>
    <div class="foot"><span><kbd>↑</kbd><kbd>↓</kbd>choose</span><span><kbd>⏎</kbd>open</span><span><kbd>Ctrl ⏎</kbd>new tab</span><span class="facts">any id finds its job</span></div><//>`;
}

// The steps of a job, with its child jobs and theirs, as bars on one axis.

import { Glyph, html, now, useEffect, useMemo, useRef, useState } from "./ui.js";
import { count, duration, percent, spent, step as axisStep } from "./format.js";
import { href } from "./route.js";

const ROW = matchMedia("(max-width: 799px)").matches ? 28 : 24, MANY = 20, VIRTUAL = 120;
const ENDED = new Set(["completed", "failed", "cancelled", "crashed", "skipped", "retrying"]);
const ms = (time) => (time ? Date.parse(time) : null);

/** Nodes of a tree: steps in their order, child jobs below the step during which they began. */
export function nodesOf(tree, steps = tree.steps) {
  const nodes = new Map();
  for (const one of steps) nodes.set(one.id, { id: one.id, kind: "step", name: one.name, record: one, status: one.status, start: ms(one.started_at), end: ms(one.completed_at), took: one.duration_ms, kids: [] });
  const top = [];
  for (const one of steps) (nodes.get(one.parent_step_id)?.kids ?? top).push(nodes.get(one.id));
  for (const child of tree.children ?? []) {
    const { job } = child;
    const start = ms(job.started_at ?? job.created_at);
    const node = { id: job.id, kind: "job", name: job.description || job.operation, record: job, status: job.status, start, end: ms(job.completed_at ?? job.cancelled_at), took: job.duration_ms, kids: nodesOf(child), folded: child.folded };
    let home = top;
    for (;;) {
      const within = home.filter((one) => one.kind === "step" && one.start !== null && one.start <= start && (one.end ?? Infinity) >= start).at(-1);
      if (!within) break;
      home = within.kids;
    }
    home.push(node);
  }
  const sort = (list) => { list.sort((a, b) => (a.start ?? Infinity) - (b.start ?? Infinity)); };
  if ((tree.children ?? []).length) { sort(top); for (const node of nodes.values()) sort(node.kids); }
  if (tree.folded) top.push({ id: `folded-${tree.job.id}`, kind: "more", name: `${count(tree.folded)} more`, status: "skipped", kids: [] });
  return grouped(top);
}

/** Many finished siblings of one name become one row; those that failed stay rows of their own. */
function grouped(list) {
  const byName = new Map();
  for (const node of list) if (node.kind !== "more") byName.set(node.name.replace(/\d+/g, "#"), [...(byName.get(node.name.replace(/\d+/g, "#")) ?? []), node]);
  const out = [];
  const done = new Set();
  for (const node of list) {
    const name = node.name.replace(/\d+/g, "#");
    const all = byName.get(name) ?? [node];
    if (all.length <= MANY) { out.push(node); continue; }
    if (!done.has(name)) {
      done.add(name);
      const quiet = all.filter((one) => one.status === "completed");
      const times = quiet.map((one) => one.took ?? 0).sort((a, b) => a - b);
      out.push({ id: `group-${node.id}`, kind: "group", name: name.replace(/[-_ ]?#/, "") || name, record: node.record, status: all.some((one) => one.status === "running") ? "running" : all.some((one) => one.status === "failed") ? "failed" : "completed",
        start: Math.min(...all.map((one) => one.start ?? Infinity)), end: all.every((one) => one.end) ? all.reduce((most, one) => Math.max(most, one.end), 0) : null,
        all, ok: quiet.length, bad: all.filter((one) => one.status === "failed" || one.status === "crashed").length, p95: times[Math.ceil(0.95 * times.length) - 1], kids: all.filter((one) => one.status !== "completed") });
    }
  }
  return out;
}

/** What is unfolded at first: everything while it is short, else the way to what failed or runs. */
export function unfoldedAtFirst(nodes) {
  const out = new Set();
  const size = (list) => list.reduce((n, one) => n + 1 + size(one.kids), 0);
  const short = size(nodes) <= 24;
  const visit = (node) => {
    const loud = node.kids.map(visit).some(Boolean) || node.status === "failed" || node.status === "running" || node.status === "crashed" || node.status === "retrying";
    if (node.kids.length && node.kind !== "group" && (short || loud)) out.add(node.id);
    return loud;
  };
  nodes.forEach(visit);
  return out;
}

/** The rows in view: nodes with their depth. */
export function rowsOf(nodes, unfolded, depth = 0, out = []) {
  for (const node of nodes) {
    out.push({ node, depth });
    if (unfolded.has(node.id)) rowsOf(node.kids, unfolded, depth + 1, out);
  }
  return out;
}

export function find(nodes, test) {
  for (const node of nodes) {
    if (test(node)) return node;
    const below = find(node.kids, test) ?? find(node.all ?? [], test);
    if (below) return below;
  }
  return null;
}

const kindOf = (status) => ({ running: "run", failed: "bad", crashed: "bad", cancelled: "off", skipped: "off", retrying: "bad" })[status] ?? "done";

function label(node) {
  const { record } = node;
  if (node.status === "running") return record.percent_complete != null ? percent(record.percent_complete) : record.total ? `${count(record.completed ?? 0)} of ${count(record.total)}` : "";
  if (node.status === "failed" || node.status === "retrying") return record.error?.type ?? "";
  if (node.status === "crashed") return "last heartbeat";
  if (node.status === "cancelled") return "cancelled";
  if (node.kind === "job" && record.result && typeof record.result === "object") return Object.entries(record.result).filter(([, value]) => typeof value !== "object").slice(0, 2).map(([key, value]) => `${key} ${value}`).join(" · ");
  return "";
}

function Bar({ node, axis, marks, present }) {
  const x = (time) => (100 * (time - axis.start)) / axis.length;
  if (node.start === null || node.start === undefined || !Number.isFinite(node.start)) return null;
  const end = node.end ?? (ENDED.has(node.status) ? node.start + (node.took ?? 0) : present);
  const a = x(node.start), w = Math.max(0, x(end) - a);
  const kind = kindOf(node.status);
  const text = label(node);
  const left = a + w > 72;
  const parts = [];
  if (node.kind === "group") {
    const bins = new Array(60).fill(0);
    for (const one of node.all) if (one.start) bins[Math.min(59, Math.max(0, Math.floor((60 * (one.start - node.start)) / Math.max(1, end - node.start))))] += 1;
    const most = Math.max(...bins);
    parts.push(html`<svg x=${`${a}%`} width=${`${Math.max(w, 1)}%`} height="24" overflow="visible" viewBox="0 0 60 24" preserveAspectRatio="none">${bins.map((n, i) => n > 0 && html`<rect class="b-done" x=${i} y=${18 - (11 * n) / most} width=".8" height=${(11 * n) / most} />`)}</svg>`);
  } else if (node.kids.length) {
    parts.push(html`<rect class=${`b-${kind}`} x=${`${a}%`} y="9" width=${`${w}%`} height="3" /><rect class=${`b-${kind}`} x=${`${a}%`} y="9" width="1.5" height="7" />`);
    if (node.status !== "running") parts.push(html`<rect class=${`b-${kind}`} x=${`${a + w}%`} y="9" width="1.5" height="7" transform="translate(-1.5 0)" />`);
  } else {
    parts.push(html`<rect class=${node.status === "retrying" ? "b-retry" : `b-${kind}`} x=${`${a}%`} y="7" width=${`${w}%`} height="10" />`);
    if (w < 0.4) parts.push(html`<rect class=${`b-${kind}`} x=${`${a}%`} y="7" width="1.5" height="10" />`);
    if (node.kind === "job") parts.push(html`<rect class="inner" x=${`${a}%`} y="7" width="1.5" height="10" transform="translate(3 0)" />`);
    if (node.status === "running" && node.record.percent_complete > 0) {
      const rest = w * (100 / node.record.percent_complete - 1);
      parts.push(html`<rect class="b-est" x=${`${a + w}%`} y="7.5" width=${`${Math.min(rest, 100 - a - w)}%`} height="9" />`);
    }
  }
  if (node.status === "failed" && !node.kids.length) parts.push(html`<svg x=${`${a + w}%`} y="0" overflow="visible" width="1" height="24"><path class="s-bad cross" d="M4 8.5l7 7m0-7l-7 7" /></svg>`);
  if (node.status === "crashed") parts.push(html`<svg x=${`${a + w}%`} y="0" overflow="visible" width="1" height="24"><path class="b-bad" d="M8 7.5l4.5 4.5L8 16.5 3.5 12z" /></svg>`);
  if (text && !node.kids.length) {
    parts.push(left ? html`<text x=${`${a}%`} y="16" dx="-7" text-anchor="end">${text}</text>` : html`<text x=${`${a + w + (node.status === "running" && node.record.percent_complete > 0 ? Math.min(w * (100 / node.record.percent_complete - 1), 100) : 0)}%`} y="16" dx=${kind === "bad" && node.status !== "retrying" ? 16 : 7}>${text}</text>`);
  }
  for (const mark of marks ?? []) parts.push(html`<svg x=${`${x(mark.time)}%`} y="0" overflow="visible" width="1" height="24"><path class=${mark.bad ? "t-err" : "t-warn"} d="M-3 1h6l-3 4.5z" /></svg>`);
  return parts;
}

/**
 * The waterfall of a job.
 *
 * nodes, unfolded, onUnfold(id, open); current, the id of the row with the cursor; onSelect(node);
 * marks, from id of a node to its errors and warnings; job, the record at the top.
 */
export function Waterfall({ job, nodes, unfolded, onUnfold, current, onSelect, marks, estimate, boxRef }) {
  const running = job.status === "running";
  const present = running ? now.value : now.peek();
  const rows = useMemo(() => rowsOf(nodes, unfolded), [nodes, unfolded]);
  const own = useRef(null);
  const box = boxRef ?? own;
  const [scroll, setScroll] = useState({ top: 0, height: 400 });
  const start = ms(job.started_at ?? job.created_at);
  const last = useMemo(() => { let most = start; const visit = (list) => { for (const one of list) { if (one.end) most = Math.max(most, one.end); visit(one.kids); } }; visit(nodes); return most; }, [nodes]);
  const until = running ? Math.max(present, last) + Math.min(estimate?.remaining_ms ?? 0, 4 * (present - start)) : Math.max(last, ms(job.completed_at) ?? last);
  const axis = { start, length: Math.max(1, (until - start) * 1.09) };
  const tick = axisStep(axis.length, 6);
  const ticks = [];
  for (let t = 0; t <= axis.length; t += tick) ticks.push(t);
  const virtual = rows.length > VIRTUAL;
  const from = virtual ? Math.max(0, Math.floor(scroll.top / ROW) - 10) : 0;
  const to = virtual ? Math.min(rows.length, Math.ceil((scroll.top + scroll.height) / ROW) + 10) : rows.length;
  // Once for each step that is chosen: rows that arrive later must not move what is looked at.
  const shown = useRef(null);
  useEffect(() => {
    const at = rows.findIndex((one) => one.node.id === current);
    if (at < 0) shown.current = null;
    if (at < 0 || !box.current || shown.current === current) return;
    shown.current = current;
    const y = at * ROW;
    if (y < box.current.scrollTop) box.current.scrollTop = y;
    // whole rows
    else if (y + ROW > box.current.scrollTop + box.current.clientHeight - 26) box.current.scrollTop = Math.ceil((y + ROW + 28 - box.current.clientHeight) / ROW) * ROW;
  }, [current, rows]);
  const onScroll = (event) => { if (virtual) setScroll({ top: event.target.scrollTop, height: event.target.clientHeight }); };
  const lines = ticks.map((t) => html`<line class="grid" x1=${`${(100 * t) / axis.length}%`} x2=${`${(100 * t) / axis.length}%`} y1="0" y2="24" />`);
  return html`<div class="wf" ref=${box} onScroll=${onScroll} role="treegrid" aria-label="steps" aria-rowcount=${rows.length + 1} tabindex="-1">
    <svg width="0" height="0" aria-hidden="true" class="visually-hidden"><defs>
      <pattern id="hatch-bad" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="b-bad" width="5" height="2.2" /></pattern>
      <pattern id="hatch-run" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(-45)"><rect class="h-run" width="5" height="1.2" /></pattern></defs></svg>
    <div class="wf-head" role="row"><span role="columnheader">Step</span><span class="took" role="columnheader">Took</span>
      <span class="plot axis" role="columnheader" aria-label="time from the start">${ticks.map((t) => html`<span class=${t > 0.93 * axis.length ? "end" : ""} style=${{ left: `${(100 * t) / axis.length}%` }}>${running && Math.abs(t - (present - start)) < 0.04 * axis.length ? "" : t === 0 ? "0" : short(t)}</span>`)}
      ${running && html`<span class="nowflag" style=${{ left: `${(100 * (present - start)) / axis.length}%` }}>now</span>`}</span></div>
    ${virtual && html`<div style=${{ height: `${from * ROW}px` }}></div>`}
    ${rows.slice(from, to).map(({ node, depth }, i) => {
      const open = unfolded.has(node.id);
      const { record } = node;
      const elapsed = node.took ?? (node.status === "running" && node.start ? present - node.start : node.end && node.start ? node.end - node.start : null);
      const note = node.kind === "group" ? "" : record?.total ? `${count(record.completed ?? 0)}/${count(record.total)}` : "";
      return html`<div key=${node.id} class=${`row ${current === node.id ? "cur" : ""} ${node.status === "failed" ? "bad" : ""} ${node.status === "skipped" ? "off" : ""}`} role="row" aria-level=${depth + 1} aria-rowindex=${from + i + 2} aria-expanded=${node.kids.length ? String(open) : undefined} aria-selected=${String(current === node.id)} onClick=${() => onSelect(node)}>
        <span class="step" role="gridcell">${Array.from({ length: depth }, () => html`<span class="tick"></span>`)}
          ${node.kids.length ? html`<button type="button" class="twisty" tabindex="-1" aria-label=${open ? "fold" : "unfold"} onClick=${(event) => { event.stopPropagation(); onUnfold(node.id, !open); }}>${open ? "▾" : "▸"}</button>` : html`<span class="twisty"></span>`}
          <${Glyph} of=${node.status} /><span class="nm" title=${node.name}>${node.name}</span>
          ${node.kind === "group" && html`<span class="note">×${count(node.all.length)}<span class="wide"> <span class="ok">✓</span> ${count(node.ok)}</span>${node.bad > 0 && html` <span class="err">✗</span> ${count(node.bad)}`}<span class="wide"> · p95 ${duration(node.p95)}</span></span>`}
          ${node.kind === "job" && html`<a class="tag" href=${href("jobs", record.id)} tabindex="-1" onClick=${(event) => event.stopPropagation()} title=${`open ${record.operation}`}>job</a>`}
          ${note && html`<span class="note wide">${note}</span>`}${depth < 2 && node.kind === "step" && html`<span class="note only-small">${spent(elapsed, node.status)}</span>`}</span>
        <span class="took" role="gridcell">${node.kind === "more" ? "" : node.kind === "group" ? duration((node.end ?? present) - node.start) : spent(elapsed, node.status)}</span>
        <span class="plot" role="gridcell"><span class="visually-hidden">${node.start && Number.isFinite(node.start) ? `starts after ${duration(node.start - start)}, ${node.status}` : node.status}</span><svg class="lane" aria-hidden="true">${lines}${running && html`<line class="nowline" x1=${`${(100 * (present - start)) / axis.length}%`} x2=${`${(100 * (present - start)) / axis.length}%`} y1="0" y2="24" />`}<${Bar} node=${node} axis=${axis} marks=${marks.get(node.id)} present=${present} /></svg></span></div>`;
    })}
    ${virtual && html`<div style=${{ height: `${(rows.length - to) * ROW}px` }}></div>`}
    ${!rows.length && html`<div class="row"><span class="step dim" role="gridcell">${running ? "no step yet" : "no steps"}</span></div>`}</div>`;
}

function short(t) {
  if (t < 1000) return `${t}\u202fms`;
  if (t < 60_000) return `${t / 1000}\u202fs`;
  if (t < 3_600_000) return `${Math.round(t / 6000) / 10}\u202fm`;
  if (t < 172_800_000) return `${Math.round(t / 360_000) / 10}\u202fh`;
  return `${Math.round(t / 8_640_000) / 10}\u202fd`;
}

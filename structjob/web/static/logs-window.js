// The window of lines that a viewer holds, and what is drawn for them: lines, folds of repeats,
// gaps, days. Positions come from heights, of which most are the same.

import { zone, zoneChoice } from "./format.js";

export const MOST = 50_000;
const TRIM = 5_000;
const FOLD = 4;
const SHARED = ["message", "job_id", "step_id", "operation", "step", "correlation_id", "trace_id", "span_id", "logger", "project", "fingerprint", "stored_at"];

/** The first moments of a time's day and of the next one, as times are written in lines, and whether
 * the clocks change on it. */
function dayOf(time) {
  const start = new Date(time);
  if (zoneChoice.utc) start.setUTCHours(0, 0, 0, 0); else start.setHours(0, 0, 0, 0);
  const end = new Date(start);
  if (zoneChoice.utc) end.setUTCDate(end.getUTCDate() + 1); else end.setDate(end.getDate() + 1);
  const limits = [start, end].map((one) => one.toISOString().slice(0, -1)); // without Z: "….184" is before "….184500Z"
  return [...limits, zone(start) !== zone(end)];
}

export const idOf = (line) => `${line.session_id}:${line.seq}`;

/** Have a line hold the texts of the one before it where they are equal: most lines of a log differ
 * in few of them, and 50,000 are held. */
function share(before, line) {
  for (const name of SHARED) if (line[name] === before[name]) line[name] = before[name];
}

/** Whether *b* repeats *a*: the same text from the same place; numbers in attributes may differ. */
function repeats(a, b) {
  if (a.message !== b.message || a.level !== b.level || a.logger !== b.logger || a.step_id !== b.step_id || a.job_id !== b.job_id) return false;
  const left = a.attrs || {}, right = b.attrs || {};
  const keys = Object.keys(left);
  if (keys.length !== Object.keys(right).length) return false;
  for (const key of keys) {
    const value = left[key], other = right[key];
    if (value === other || (typeof value === "number" && typeof other === "number")) continue;
    if (value && typeof value === "object" && JSON.stringify(value) === JSON.stringify(other)) continue;
    return false;
  }
  return true;
}

/** Lines in their order, each once, with the rows that are drawn for them. */
export class Window {
  constructor() {
    this.unfolded = new Set();
    this.heights = new Map();
    this.gaps = new Map();
    this.base = 20;
    this.clear();
  }

  clear() {
    this.lines = [];
    this.several = false; // whether they are of more than one job
    this.known = new Set();
    this.items = [];
    this.day = ["", "", false];
    this.extras = [];
    this.tops = new Float64Array(1024);
    this.clean = 0;
    this.heights.clear();
  }

  /** Those of the lines that are not here. */
  unknown(lines) { return lines.filter((line) => !this.known.has(idOf(line))); }

  /** Add lines at an end; return those that were new. */
  add(lines, end = "bottom") {
    const fresh = [];
    for (const line of lines) {
      const had = this.known.size;
      if (this.known.add(idOf(line)).size === had) continue;
      const before = fresh.at(-1) ?? this.lines.at(-1);
      if (before) { share(before, line); this.several ||= before.job_id !== line.job_id; }
      fresh.push(line);
    }
    if (!fresh.length) return fresh;
    if (end === "bottom") {
      const from = this.lines.length;
      const last = from ? this.lines[from - 1] : null;
      for (const line of fresh) this.lines.push(line);
      const late = last && fresh[0].ts < last.ts && fresh.some((line) => line.ts < last.ts);
      if (late && this.sort(from)) this.build();
      else this.append(from);
    } else {
      this.lines = fresh.concat(this.lines);
      this.build();
    }
    return fresh;
  }

  /** A late line goes where its time belongs, if that is near the end; return whether any moved. */
  sort(from) {
    const start = Math.max(0, from - 2000);
    const tail = this.lines.slice(start);
    const sorted = tail.map((line, i) => [line, i]).sort((a, b) => (a[0].ts < b[0].ts ? -1 : a[0].ts > b[0].ts ? 1 : a[1] - b[1])).map(([line]) => line);
    const moved = sorted.some((line, i) => line !== tail[i]);
    if (moved) this.lines.splice(start, tail.length, ...sorted);
    return moved;
  }

  /** Drop what is beyond the most lines, at the end that is not looked at; return how many. */
  trim(end) {
    const over = this.lines.length - MOST;
    if (over <= 0) return 0;
    const { rows, lines } = end === "top" ? this.firstRows(over + TRIM) : { rows: 0, lines: over + TRIM };
    const cut = lines < over; // one fold has them all
    const n = cut ? over + TRIM : lines;
    const gone = end === "top" ? this.lines.splice(0, n) : this.lines.splice(-n, n);
    for (const line of gone) { const id = idOf(line); this.known.delete(id); this.heights.delete(id); }
    if (cut || end !== "top") this.build();
    else this.forget(rows);
    return n;
  }

  /** How many rows at the top have at most *most* lines, and how many they have. */
  firstRows(most) {
    let rows = 0, lines = 0;
    for (; rows < this.items.length; rows += 1) {
      const item = this.items[rows], more = item.kind === "line" ? 1 : item.kind === "fold" ? item.lines : 0;
      if (lines + more > most) break;
      lines += more;
    }
    return { rows, lines };
  }

  /** Drop rows at the top; the others stay as they are. */
  forget(rows) {
    this.layout();
    const above = this.tops[rows];
    this.items.splice(0, rows);
    this.clean = this.items.length;
    for (let i = 0; i <= this.clean; i += 1) this.tops[i] = this.tops[i + rows] - above;
  }

  /** A row that is no line (lag, a restart): it stands after the last line that is there now. */
  note(item) {
    const after = this.lines.length ? idOf(this.lines.at(-1)) : null;
    this.extras.push({ after, item: { ...item, key: `n${this.extras.length}` } });
    this.build();
  }

  addGaps(session, gaps) {
    const list = this.gaps.get(session) || [];
    for (const gap of gaps) {
      const at = list.findIndex((one) => one.first_seq === gap.first_seq);
      if (gap.closed) { if (at >= 0) list.splice(at, 1); } else if (at < 0) list.push(gap);
    }
    list.sort((a, b) => a.first_seq - b.first_seq);
    this.gaps.set(session, list);
    if (list.length || gaps.length) this.build();
  }

  /** Times are shown in another zone now. */
  rezone() {
    if (!this.lines.length) return;
    this.day = dayOf(this.lines[0].ts);
    const [from, until, changes] = this.day;
    const of = (item) => item.kind === "day" || item.kind === "zone";
    if (changes || this.items.some(of) || this.lines.some(({ ts }) => ts < from || ts >= until)) this.build(); // days begin elsewhere
  }

  build() {
    this.items = [];
    this.day = ["", "", false];
    this.seen = new Map();
    this.clean = 0;
    this.notes = new Map();
    for (const extra of this.extras) {
      if (!this.notes.has(extra.after)) this.notes.set(extra.after, []);
      this.notes.get(extra.after).push(extra.item);
    }
    this.append(0);
  }

  append(from) {
    if (from === 0) { this.seen = new Map(); this.last = null; this.run = 0; this.notes ||= new Map(); }
    const { items } = this;
    for (let i = from; i < this.lines.length; i += 1) {
      const line = this.lines[i];
      const before = this.last;
      const gapsThere = this.gaps.get(line.session_id);
      let gap = false;
      if (gapsThere?.length) {
        const since = this.seen.get(line.session_id);
        if (since !== undefined) {
          for (const one of gapsThere) {
            if (one.first_seq > since && one.last_seq < line.seq) { items.push({ kind: "gap", key: `g${line.session_id}:${one.first_seq}`, gap: one }); gap = true; }
          }
        }
        this.seen.set(line.session_id, line.seq);
      }
      const newDay = before && this.newDay(before.ts, line.ts);
      if (newDay) items.push({ kind: "day", key: `d${idOf(line)}`, time: line.ts });
      const changed = before && this.day[2] && zone(before.ts) !== zone(line.ts);
      if (changed) items.push({ kind: "zone", key: `z${idOf(line)}`, text: `the clocks change: ${zone(before.ts)} before, ${zone(line.ts)} from here` });
      if (before && !gap && !newDay && !changed && repeats(before, line)) {
        this.run += 1;
        const first = items.at(-1).kind === "fold" ? items.at(-1) : null;
        if (first && !this.unfolded.has(first.first)) {
          first.lines += 1; first.until = line; this.fewer(items.length - 1);
        } else if (this.run >= FOLD && !this.unfolded.has(this.runKey)) {
          const lines = items.splice(items.length - (this.run - 1)).map((one) => one.line);
          items.push({ kind: "fold", key: `f${this.runKey}`, first: this.runKey, line: lines[0], from: this.runFirst, lines: this.run, until: line });
          this.fewer(items.length - 1);
        } else items.push({ kind: "line", key: idOf(line), line });
      } else {
        this.run = 0;
        this.runKey = idOf(line);
        this.runFirst = line;
        items.push({ kind: "line", key: this.runKey, line });
      }
      this.last = line;
      const notes = this.notes.size && this.notes.get(idOf(line));
      if (notes) { items.push(...notes); this.run = -1e9; }
    }
  }

  /** Whether a line stands in another day than the one before it, in the zone that is shown. */
  newDay(before, time) {
    if (before < this.day[0] || before >= this.day[1]) this.day = dayOf(before);
    return time < this.day[0] || time >= this.day[1];
  }

  fewer(index) { this.clean = Math.min(this.clean, index); }

  height(item) {
    return this.heights.get(item.key) ?? (item.kind === "line" ? this.base : item.kind === "fold" ? 20 : 24);
  }

  /** Note what a row has measured; return whether that is new. */
  measure(item, index, height) {
    if (this.height(item) === height) return false;
    this.heights.set(item.key, height);
    this.clean = Math.min(this.clean, index);
    return true;
  }

  /** Forget what rows have measured. */
  unmeasured() { this.heights.clear(); this.clean = 0; }

  /** The positions of all rows: tops[i], and the whole height at tops[items.length]. */
  layout() {
    const n = this.items.length;
    if (this.tops.length < n + 1) {
      const larger = new Float64Array(Math.max(2 * this.tops.length, n + 1));
      larger.set(this.tops);
      this.tops = larger;
    }
    for (let i = this.clean; i < n; i += 1) this.tops[i + 1] = this.tops[i] + this.height(this.items[i]);
    this.clean = n;
    return this.tops[n];
  }

  get total() { this.layout(); return this.tops[this.items.length]; }

  /** The row at a position. */
  at(y) {
    this.layout();
    let low = 0, high = this.items.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.tops[middle] <= y) low = middle; else high = middle - 1;
    }
    return low;
  }

  /** The row that shows a line, -1 where it is not here. */
  indexOf(id) {
    if (!this.known.has(id)) return -1;
    return this.items.findIndex((item) => item.key === id || (item.kind === "fold" && this.within(item, id)));
  }

  within(fold, id) {
    const start = this.lines.indexOf(fold.line);
    for (let i = start; i >= 0 && i < this.lines.length; i += 1) {
      if (idOf(this.lines[i]) === id) return true;
      if (this.lines[i] === fold.until) return false;
    }
    return false;
  }
}

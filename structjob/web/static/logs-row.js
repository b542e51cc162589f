// The rows of a viewer as elements.

import { brief, clock, count, day, duration, full, plural, zone } from "./format.js";
import { HIDDEN, SAID, el, errorOf, folded, frames, shown, valueText } from "./logs-text.js";
import { idOf } from "./logs-window.js";

const LETTERS = { debug: "D", info: "I", success: "S", warning: "W", error: "E", critical: "C" };
// Lines that report the state or the progress of a job or step.
const OWN = /^((operation|step)_(created|start|end|error|crashed|crash_withdrawn)|progress)$/;

/** What a column of the list shows of a line. */
export function cell(line, column) {
  if (column.startsWith("attr.")) {
    const value = column.slice(5).split(".").reduce((at, key) => (at && typeof at === "object" ? at[key] : undefined), { ...line.attrs, [column.slice(5)]: undefined }) ?? line.attrs?.[column.slice(5)];
    return value === undefined ? "–" : valueText(value);
  }
  if (column === "logger") return line.logger || (line.stream && line.stream !== "system" && line.stream !== "log" ? line.stream : line.kind && line.kind !== "log" ? line.kind.split("_")[0] : "–");
  if (column === "job") return line.operation || (line.job_id ? line.job_id.slice(-8) : "– system");
  return line[column] ?? "–";
}

/** The line of a row; *whole*: nothing of its message is left out. */
export function lineNode(line, view, whole = false) {
  const level = el("span", "level", LETTERS[line.level] || line.level[0].toUpperCase());
  level.title = line.level;
  level.setAttribute("part", "level");
  const time = el("span", "time", clock(line.ts));
  time.title = full(line.ts);
  time.setAttribute("part", "time");
  const message = line.message.trim() ? el("span", "msg", shown(line.message, view.find, whole)) : el("span", "msg more", "no text");
  message.setAttribute("part", "message");
  const attrs = el("span", "attrs");
  attrs.dataset.job = cell(line, "job"); // seen where there is no room for columns
  const used = new Set(view.columns.filter((one) => one.startsWith("attr.")).map((one) => one.slice(5)));
  const own = OWN.test(line.kind) && line.message !== line.kind; // imported lines may say no more than their kind
  let shownAttrs = 0, more = 0;
  for (const [key, value] of Object.entries(line.attrs || {})) {
    if (HIDDEN.has(key) || used.has(key) || (own && (SAID.has(key) || (line.kind === "progress" && key === "percent")))) continue;
    if (shownAttrs > 24) { more += 1; continue; }
    shownAttrs += 1;
    const attr = el("span", "attr", el("i", "", shown(key, view.find), "="), shown(brief(valueText(value), 400), view.find));
    attr.setAttribute("part", "attr");
    attrs.append(shownAttrs > 1 ? "  " : "", attr);
  }
  if (more) attrs.append(el("span", "more", `  … ${plural(more, "more attribute")}`));
  const text = el("span", "text", message, shownAttrs > 0 && "  ", attrs);
  const node = el("div", `line ${line.level}${whole ? " whole" : ""}`, time, level, ...view.columns.map((one) => el("span", "col", shown(String(cell(line, one))))), text);
  return node;
}

/** Give a row its buttons, which are seen below the pointer only: most rows never need them. */
export function offer(row) {
  if (row?.item?.kind !== "line" || row.querySelector(".acts")) return;
  const acts = el("span", "acts");
  for (const [key, name, label] of [["c", "context", "context"], ["y", "link", "link"]]) {
    const button = el("button", "", el("kbd", "", key), label);
    button.type = "button";
    button.tabIndex = -1;
    button.dataset.act = name;
    acts.append(button);
  }
  row.firstChild.after(acts);
}

/** Show whether a row is the one that the cursor is on, and whether it is selected. */
export function mark(row, view) {
  row.classList.toggle("cursor", view.cursor === row.item.key);
  row.classList.toggle("picked", Boolean(row.item.line) && view.picked.has(idOf(row.item.line)));
}

/** The row of an item; *view* has columns, find, cursor, picked, open and whole. */
export function rowNode(item, view) {
  const row = el("div", "row");
  row.item = item;
  row.dataset.key = item.key;
  row.id = `r${item.key}`;
  row.setAttribute("part", "row");
  row.setAttribute("role", "group");
  if (item.kind === "line") {
    const { line } = item;
    row.setAttribute("aria-label", `${clock(line.ts, false)}, ${line.level}, ${line.message.slice(0, 200)}`);
    const open = view.open.has(item.key);
    row.append(lineNode(line, view, open));
    if (open) row.append(detail(line, view));
    else if (errorOf(line) && !view.inPanel) row.append(hint(line, view));
  } else if (item.kind === "fold") {
    const { until, lines, from } = item;
    const every = lines > 1 ? (new Date(until.ts) - new Date(item.line.ts)) / (lines - 1) : 0;
    const differs = Object.entries(item.line.attrs || {}).find(([key, value]) => typeof value === "number" && until.attrs[key] !== from.attrs[key]);
    const fold = lineNode({ ...item.line, attrs: {} }, view);
    fold.classList.remove(item.line.level);
    fold.classList.add("fold");
    fold.querySelectorAll(".col").forEach((one) => { one.textContent = "″"; });
    fold.querySelector(".text").replaceChildren(el("kbd", "", `×${count(lines)}`), el("em", "",
      ` same ${differs ? "text" : "line"} until ${clock(until.ts)}`
      + (differs ? ` · ${differs[0]} ${count(from.attrs[differs[0]])}–${count(until.attrs[differs[0]])}` : every >= 1 ? ` · every ${duration(every)}` : "")));
    row.setAttribute("aria-label", `${lines} repeats of the line before`);
    row.append(fold);
  } else if (item.kind === "gap") {
    const { gap } = item;
    const n = gap.count ?? gap.last_seq - gap.first_seq + 1;
    row.append(el("div", "gap", `${count(n)} ${n === 1 ? "line" : "lines"} missing here: ${gap.reason}`));
  } else if (item.kind === "lag") {
    const button = el("button", "", "load");
    button.type = "button";
    button.dataset.act = "load";
    row.append(el("div", "gap lag", `${count(item.lag.skipped)} lines skipped because this page read slowly${item.lag.errors ? `, ${count(item.lag.errors)} errors among them` : ""}`, button));
  } else if (item.kind === "day") {
    row.append(el("div", "day", `${new Date(item.time).toLocaleDateString("en-GB", { weekday: "long", timeZone: zone() === "UTC" ? "UTC" : undefined })} ${day(item.time)}`));
  } else {
    row.append(el("div", "day", item.text));
  }
  mark(row, view);
  return row;
}

function hint(line, view) {
  const error = errorOf(line);
  const parts = frames(error.traceback).filter((one) => one.file);
  const own = parts.filter((one) => one.own).length;
  const button = el("button", "lib", `▸ ${error.type}: `, shown(brief(error.message, 300), view.find), ` (${plural(parts.length, "frame")}, ${own} yours)`);
  button.type = "button";
  button.tabIndex = -1;
  button.dataset.act = "open";
  return el("div", "open hint", button);
}

/** A traceback: own frames in full, those of libraries folded. */
export function tracebackNodes(text, whole, find = "") {
  const out = [];
  const parts = frames(text);
  const all = parts.filter((one) => one.file);
  if (!all.length) return [el("div", "last", shown(text, find, true))];
  out.push(el("div", "from", `Traceback, most recent call last · ${plural(all.length, "frame")}, ${all.filter((one) => one.own).length} yours`));
  const draw = (frame) => {
    out.push(el("div", frame.own ? "own" : "from", `${frame.file}:${frame.line} in ${frame.name}`));
    frame.code.forEach((code) => out.push(el("div", "code", shown(code, find))));
  };
  for (const one of whole ? parts : folded(parts)) {
    if (one.file) draw(one);
    else if (one.folded) {
      const button = el("button", "lib", `▸ ${plural(one.folded.length, "frame")} in ${one.names}`);
      button.type = "button";
      button.dataset.act = "whole";
      out.push(button);
    } else if (one.from) out.push(el("div", "from", one.from));
    else out.push(el("div", "last", shown(one.last, find, true)));
  }
  return out;
}

function detail(line, view) {
  const error = errorOf(line);
  const out = el("div", error || line.level === "error" ? "open" : "open calm");
  if (error) out.append(...tracebackNodes(error.traceback, view.whole.has(idOf(line)), view.find));
  if (!error || view.whole.has(idOf(line))) {
    const kv = el("div", "kv");
    for (const [key, value] of pairs(line)) {
      kv.append(el("span", "", shown(key)), el("div", "", shown(value, view.find, true)));
      if (key in (line.attrs || {})) {
        const acts = el("span", "do");
        for (const act of ["filter", "exclude", "column"]) {
          const button = el("button", "", act);
          button.type = "button";
          button.dataset.act = act;
          button.dataset.name = key;
          acts.append(button);
        }
        kv.append(acts);
      }
    }
    out.append(kv);
  }
  return out;
}

/** All that a line says, as pairs of text. */
export function pairs(line) {
  const out = [];
  for (const [key, value] of Object.entries(line.attrs || {})) {
    if (key === "exception" && errorOf(line)) continue;
    out.push([key, typeof value === "object" ? JSON.stringify(value, null, 2) : String(value)]);
  }
  out.push(["line", idOf(line)], ["time", full(line.ts)]);
  for (const name of ["level", "kind", "logger", "stream", "operation", "step", "job_id", "step_id", "correlation_id", "trace_id", "project"]) {
    if (line[name]) out.push([name, String(line[name])]);
  }
  return out;
}

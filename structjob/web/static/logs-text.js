// Text of log lines as nodes: never markup. ANSI colors become classes, other control characters
// and bidi controls are shown, matches are marked, long text is cut.

import { CONTROLS, finder, sign, startOf } from "./format.js";

const CUT = 4096;
const COLORS = ["black", "red", "green", "yellow", "blue", "magenta", "cyan", "white"];

// Attributes that the row or the panel shows in another way.
export const HIDDEN = new Set(["exception", "traceback", "parent_job_id", "error_message"]);
// What the message or the columns of a line about the state of a job or step say already: the same as
// on the command line (structjob/text/rendering.py).
export const SAID = new Set(["step", "step_number", "operation", "status", "duration_ms", "duration_str", "total_duration_ms", "error_type", "last_lines", "attempt_number", "max_attempts", "retry_delay", "total_steps", "total_steps_completed", "retry_possible"]);

/** An element with a class and what is in it: text or nodes. */
export function el(tag, className, ...content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...content.filter((one) => one !== null && one !== undefined && one !== false));
  return node;
}

function marked(out, text, find, className) {
  let at = 0;
  const add = (plain) => { if (plain) out.append(className ? el("span", className, plain) : plain); };
  for (const { 0: hit, index } of find ? text.matchAll(find) : []) {
    add(text.slice(at, index));
    out.append(el("mark", className, hit));
    at = index + hit.length;
  }
  add(text.slice(at));
}

/** Return *text* as a fragment, with each occurrence of *found* marked. */
export function shown(text, found = "", whole = false) {
  const out = document.createDocumentFragment();
  const start = whole || text.length <= CUT ? text : startOf(text, CUT);
  const body = start.replace(/\r\n/g, "\n"), find = finder(found);
  let at = 0, className = "";
  for (const found of body.matchAll(CONTROLS)) {
    marked(out, body.slice(at, found.index), find, className);
    at = found.index + found[0].length;
    if (found[1] !== undefined) className = colors(found[1], className);
    else if (found[2]) out.append(el("span", "ctl", sign(found[2])));
    else out.append(el("span", "ctl", `␛${found[0].slice(1).replace(/[\u0000-\u001f]/g, "")}`));
  }
  marked(out, body.slice(at), find, className);
  if (start !== text) out.append(el("span", "more", ` … ${(text.length - start.length).toLocaleString("en-US")} more characters`));
  return out;
}

function colors(codes, before) {
  let out = before;
  const color = (name) => { out = out.replace(/ a-c-\w+/, "") + (name ? ` a-c-${name}` : ""); };
  const list = (codes || "0").split(";").map(Number);
  for (let i = 0; i < list.length; i += 1) {
    const code = list[i];
    if (code === 38 || code === 48) { // a palette's color, of which the first 16 have names, or three parts
      const named = code === 38 && list[i + 1] === 5 && list[i + 2] < 16;
      if (code === 38) color(named && COLORS[list[i + 2] % 8]);
      i += list[i + 1] === 5 ? 2 : 4;
    } else if (code === 0) out = "";
    else if (code === 1 || code === 22) out = out.replace(" a-bold", "") + (code === 1 ? " a-bold" : "");
    else if ((code >= 30 && code <= 37) || (code >= 90 && code <= 97)) color(COLORS[code % 10]);
    else if (code === 39) color(null);
  }
  return out;
}

/** A value of an attribute on one line: text as it is, numbers plain, the rest as JSON. */
export function valueText(value) {
  if (typeof value === "number") return numberText(value);
  if (typeof value === "string") return value;
  return JSON.stringify(value) ?? "null";
}

/** A number as a list shows it: `fraction` of text/amounts.py says the rule. */
export function numberText(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) || !(size >= 1e-6 && size < 1e15)) return String(value);
  const [whole, rest = ""] = String(value).split(".");
  const places = size >= 1 ? 4 : rest.search(/[1-9]/) + 4;
  const text = rest.slice(0, places).replace(/0+$/, "");
  return text ? `${whole}.${text}` : whole;
}

const LIBRARY = /site-packages|dist-packages|[\\/]lib[\\/]python\d|^<frozen|[\\/]structjob[\\/](?!cli[\\/]demo)/;
const SHORT = /^.*?((?:[^\\/]+[\\/])?[^\\/]+)$/;

/**
 * A traceback as parts: {from}, {file, line, name, code, own}, {last}, {text}. Names of packages are
 * those that the frames of libraries are in.
 */
export function frames(traceback) {
  const parts = [];
  const lines = traceback.replace(/\n$/, "").split("\n");
  for (let i = 0; i < lines.length; i += 1) {
    const found = /^\s*File "(.*)", line (\d+)(?:, in (.*))?$/.exec(lines[i]);
    if (found) {
      const frame = { path: found[1], file: SHORT.exec(found[1])?.[1] ?? found[1], line: Number(found[2]), name: found[3] || "", code: [], own: !LIBRARY.test(found[1]) };
      while (i + 1 < lines.length && /^\s{4,}/.test(lines[i + 1])) {
        i += 1;
        if (!/^\s*[\^~]+\s*$/.test(lines[i])) frame.code.push(lines[i].trim());
      }
      parts.push(frame);
    } else if (/^(During handling|The above exception)/.test(lines[i])) {
      parts.push({ from: lines[i].startsWith("During") ? "was raised while this was handled" : "was raised from" });
    } else if (/^Traceback|^\s*$|^\[job_id=.*\]$/.test(lines[i])) { // the note with the ids, which the page shows
      continue;
    } else {
      parts.push({ last: lines[i] });
    }
  }
  return parts;
}

/** Own frames in full, those of libraries folded by runs: [{frame} | {folded: [frames], names}]. */
export function folded(parts) {
  const out = [];
  for (const part of parts) {
    if (part.file && !part.own) {
      const last = out.at(-1);
      if (last?.folded) last.folded.push(part);
      else out.push({ folded: [part] });
    } else out.push(part);
  }
  for (const one of out) {
    if (one.folded) one.names = [...new Set(one.folded.map((frame) => packageOf(frame.path)))].join(", ");
  }
  return out;
}

function packageOf(path) {
  const found = /(?:site-packages|dist-packages|python[\d.]+)[\\/]([^\\/.]+)/.exec(path) || /[\\/](structjob)[\\/]/.exec(path);
  return found ? found[1] : path.replace(/^<|>$/g, "");
}

/** The traceback of a line, and its error's type and message, where it has one. */
export function errorOf(line) {
  const attrs = line.attrs || {};
  const exception = attrs.exception && typeof attrs.exception === "object" ? attrs.exception : null;
  const text = exception?.traceback ?? (typeof attrs.exception === "string" ? attrs.exception : typeof attrs.traceback === "string" ? attrs.traceback : null);
  if (!text) return null;
  return { type: exception?.type ?? attrs.error_type ?? "", message: exception?.message ?? attrs.error_message ?? "", traceback: text };
}

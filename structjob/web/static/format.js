// Numbers, durations and times as text, and text that has control characters. A narrow no-break
// space stands before units.

const THIN = "\u202f";
const SECOND = 1000, MINUTE = 60_000, HOUR = 3_600_000, DAY = 86_400_000;
const MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split(" ");

/** Whether times are shown in UTC rather than in the browser's zone. */
export const zoneChoice = { utc: read("structjob-utc") === "1" };

function read(key) {
  try { return localStorage.getItem(key); } catch { return null; }
}

export function remember(key, value) {
  try { localStorage.setItem(key, value); } catch { /* private windows keep nothing */ }
}
export const recall = read;

/** How many milliseconds this machine's clock is ahead of the server's; a page sets it. */
export const skew = { ms: () => 0 };
/** The present by the server's clock, which is that of the times that are shown. */
export const present = () => Date.now() - skew.ms();

const two = (n) => String(n).padStart(2, "0");

function parts(time) {
  const d = new Date(time);
  return zoneChoice.utc
    ? [d.getUTCFullYear(), d.getUTCMonth(), d.getUTCDate(), d.getUTCHours(), d.getUTCMinutes(),
      d.getUTCSeconds(), d.getUTCMilliseconds()]
    : [d.getFullYear(), d.getMonth(), d.getDate(), d.getHours(), d.getMinutes(), d.getSeconds(),
      d.getMilliseconds()];
}

/** How many milliseconds the shown zone is behind UTC at *time*. */
export const behind = (time) => (zoneChoice.utc ? 0 : new Date(time).getTimezoneOffset() * MINUTE);

/** "+02", "+05:30" or "UTC": the zone in force at *time*. */
export function zone(time = Date.now(), long = false) {
  if (zoneChoice.utc) return "UTC";
  const minutes = -behind(time) / MINUTE;
  const size = Math.abs(minutes);
  const rest = size % 60;
  return (minutes < 0 ? "−" : "+") + two(Math.floor(size / 60)) + (rest || long ? ":" + two(rest) : "");
}

/** 14:03:22.184 */
export function clock(time, millis = true) {
  if (!time) return "–";
  const [, , , h, m, s, ms] = parts(time);
  return `${two(h)}:${two(m)}:${two(s)}` + (millis ? "." + String(ms).padStart(3, "0") : "");
}
export function hour(time) {
  const [, , , h, m] = parts(time);
  return `${two(h)}:${two(m)}`;
}
/** A label of an axis whose labels are *length* milliseconds apart: 14:03, 14:03:22, 14:03:22.184. */
export function tickText(time, length) {
  return length >= MINUTE ? hour(time) : clock(time, length < SECOND);
}
/** 28 Nov, with the year where it is not the present one. */
export function day(time) {
  const [y, m, d] = parts(time);
  return `${d} ${MONTHS[m]}` + (y === parts(present())[0] ? "" : ` ${y}`);
}
export const sameDay = (a, b) => parts(a).slice(0, 3).join() === parts(b).slice(0, 3).join();
/** The time alone today, with its day otherwise. */
export function when(time, millis = false) {
  if (!time) return "–";
  return sameDay(time, present()) ? clock(time, millis) : `${day(time)} ${hour(time)}`;
}
/** In full, for titles: 28 Nov 2026 14:03:22.184 +02:00 */
export function full(time) {
  if (!time) return "";
  const [y, m, d] = parts(time);
  return `${d} ${MONTHS[m]} ${y} ${clock(time)} ${zone(time, true)} · ${ago(time)}`;
}

export function count(n) {
  return n == null ? "–" : Math.round(n).toLocaleString("en-US");
}
/** `·` for zero in columns of counts. */
export const dot = (n) => (n ? count(n) : "·");
export function percent(n, digits = 0) {
  return n == null ? "–" : n.toFixed(n === 100 && digits === 0 ? 0 : digits) + THIN + "%";
}
export const plural = (n, one, many = one + "s") => `${count(n)} ${n === 1 ? one : many}`;

const rounded = (value) => Math.floor(value + 0.5);
/** <1 ms, 310 ms, 4.48 s, 58.2 s, 4 m 12 s, 1 d 04 h: the rule of `lasting` in text/appearance.py. */
export function duration(ms) {
  if (ms == null || Number.isNaN(ms)) return "–";
  const seconds = ms / 1000;
  if (seconds < 0.001) return "<" + THIN + "1" + THIN + "ms";
  if (seconds < 0.9995) return rounded(seconds * 1000) + THIN + "ms";
  if (seconds < 9.995) return (rounded(seconds * 100) / 100).toFixed(2) + THIN + "s";
  if (seconds < 59.95) return (rounded(seconds * 10) / 10).toFixed(1) + THIN + "s";
  const all = rounded(seconds);
  const [days, hours, minutes] = [Math.floor(all / 86_400), Math.floor(all / 3600) % 24, Math.floor(all / 60) % 60];
  if (days) return days + THIN + "d " + two(hours) + THIN + "h";
  return hours ? hours + THIN + "h " + two(minutes) + THIN + "m" : minutes + THIN + "m " + two(all % 60) + THIN + "s";
}
/** A job's or a step's duration. When a process was killed is unknown: at least until its last sign of life. */
export function spent(ms, status) {
  if (status !== "crashed") return duration(ms);
  return ms ? "≥" + THIN + duration(ms) : "–";
}
/** One unit only: 4 m, 2 h, 38 d. */
export function rough(ms) {
  if (ms == null) return "–";
  if (ms < MINUTE) return Math.max(0, Math.round(ms / SECOND)) + THIN + "s";
  if (ms < HOUR) return Math.floor(ms / MINUTE) + THIN + "m";
  if (ms < 2 * DAY) return Math.floor(ms / HOUR) + THIN + "h";
  return Math.floor(ms / DAY) + THIN + "d";
}
export function ago(time) {
  if (!time) return "–";
  const ms = present() - new Date(time);
  return ms < SECOND ? "now" : rough(ms) + " ago";
}
export function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) { n /= 1000; i += 1; }
  return (i === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)) + THIN + units[i];
}

/** The moment *days* days ago, for the API. */
export const daysAgo = (days) => new Date(present() - days * DAY).toISOString();

/** "24h" as people read it: 24 h. */
export const spanText = (text) => text.replace(/(\d)([a-z])/, `$1${THIN}$2`);

/** Milliseconds of "24h", "-3h", "7d"; null if it is not a length of time. */
export function span(text) {
  const found = /^-?(\d+)\s*(s|m|h|d|w)$/.exec(text || "");
  return found && Number(found[1]) * { s: SECOND, m: MINUTE, h: HOUR, d: DAY, w: 7 * DAY }[found[2]];
}

/** Round steps for the labels of an axis of *length* milliseconds, *most* of them at most. */
export function step(length, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND,
    15 * SECOND, 30 * SECOND, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
    HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 14 * DAY, 28 * DAY];
  return steps.find((one) => length / one <= most) || 28 * DAY * Math.ceil(length / (28 * DAY * most));
}

/** Colors of a terminal, its other commands (links, erasing), and characters that act rather than show:
 *  controls, and those that turn the direction of what follows. */
export const CONTROLS = /\u001b\[([\d;:]*)m|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b\[[0-?]*[ -/]*[@-~]|([\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069])/g;
/** What stands for such a character: ␛ or ⟦U+202E⟧. */
export function sign(control) {
  const code = control.charCodeAt(0);
  if (code > 0x9f) return `⟦U+${code.toString(16).toUpperCase().padStart(4, "0")}⟧`;
  return String.fromCharCode(code === 0x7f ? 0x2421 : code < 32 ? 0x2400 + code : 0xfffd);
}
/** Text without effects: a name cannot turn the direction of the text after it. */
export const visible = (text) => text.replaceAll("\r\n", "\n").replace(CONTROLS, (all, color, control) => (color !== undefined ? "" : control ? sign(control) : ""));

/** The first *most* characters of a text; one that takes two, such as 😀, is not cut in half. */
export const startOf = (text, most) => text.slice(0, most).replace(/[\ud800-\udbff]$/, "");
/** A message as a sentence. */
export const sentence = (text) => text.slice(0, 1).toUpperCase() + text.slice(1) + (/[.!?…]$/.test(text) ? "" : ".");
/** What of a value is worth a word in a list: of text itself, of the rest JSON. */
export function brief(value, most = 80) {
  const text = typeof value === "string" ? value : JSON.stringify(value) ?? "";
  return text.length > most ? startOf(text, most - 1) + "…" : text;
}
/** What finds a text in another one, in capitals or not. The other one is not changed for that: "İ" in small letters has two characters. */
export const finder = (text) => (text ? new RegExp(text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&"), "giu") : null);

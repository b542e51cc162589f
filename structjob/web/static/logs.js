// <structjob-logs>: a log of any length, read and followed, without any library.
//
// <structjob-logs src="https://host/ops/jobs/" job="gui-17" follow height="400px"></structjob-logs>
//
// Attributes: src, type, job, step, level, q, correlation, height, follow, wrap, theme, columns.
// Properties of the same names, and: token, client, filter (parameters of GET /logs), channels.
// Methods: pause(), resume(), jump("SESSION:SEQ"), first("error"), find(text).
// Events: structjob-line, structjob-state, structjob-error, structjob-rows, structjob-open,
// structjob-filter, structjob-counts.

import { Api } from "./api.js";
import { count, finder, sentence } from "./format.js";
import { el, errorOf } from "./logs-text.js";
import { MOST, Window, idOf } from "./logs-window.js";
import { mark, offer, rowNode } from "./logs-row.js";
import { CSS } from "./logs-style.js";

const PAGE = 500, FILL = 40_000, FILL_PAGE = 5000, DRAW_EVERY = 100, DRAW_POURING = 200, OVERSCAN = 400, NEAR = 2000, STRIP_BUCKETS = 120, NARROW = 43, AWAY = 10_000, SPEAK = 5000, AGAIN = 5000;
const MORE = "More lines of this log are stored: scroll to load them";
const ALIASES = { "filter-type": "type", "job-run-id": "job", correlation: "correlation_id" };
const FILTERS = ["type", "job", "step", "level", "q", "correlation_id"];
/** logs-selection.js, which is loaded as soon as text may be selected: few visits need it. */
let selecting = null;
const selected = (root) => selecting?.selected(root) ?? null;
const sheet = new CSSStyleSheet();
sheet.replaceSync(CSS);

export class StructjobLogs extends HTMLElement {
  static observedAttributes = ["src", "type", "job", "step", "level", "q", "correlation", "height", "follow", "wrap", "columns", ...Object.keys(ALIASES)];

  #client = null; #token; #filter = {}; #window = new Window(); #stream = null; #turn = 0;
  #rows = new Map(); #frame = 0; #reload = 0; #following = false; #paused = false;
  #missed = { lines: 0, errors: 0 }; #detached = false; #older = null; #newer = null; #loading = new Set();
  #strip = null; #said = { lines: 0, errors: 0, at: 0 }; #away = 0; #matches = null; #context = null;
  #started = false; #pickFrom = null; #state = "connecting"; #error = null; #sessions = new Set(); #resize = null;
  #lastTop = 0; #copied = null; #wanted = null; #busy = false; #finished = false; #held = null; #drawn = 0; #drawing = 0; #undrawn = 0; #height = 0; #width = 0;

  view = { columns: ["logger"], find: "", cursor: null, picked: new Set(), open: new Set(), whole: new Set(), inPanel: false };
  channels = ["logs"];

  constructor() {
    super();
    const shadow = this.attachShadow({ mode: "open" });
    shadow.adoptedStyleSheets = [sheet];
    this.headBox = el("div", "head");
    this.headBox.hidden = true;
    this.box = el("div", "view");
    this.box.tabIndex = 0;
    this.box.setAttribute("role", "group");
    this.box.setAttribute("aria-label", "log lines");
    this.tall = el("div", "tall");
    this.tall.setAttribute("role", "log");
    this.tall.setAttribute("aria-live", "off");
    this.tall.setAttribute("aria-label", "lines");
    this.box.append(this.tall);
    this.stripBox = el("div", "strip");
    this.stripBox.setAttribute("aria-hidden", "true");
    this.pill = el("button", "pill");
    this.pill.type = "button";
    this.pill.hidden = true;
    this.pill.setAttribute("part", "pill");
    this.status = el("div", "said");
    this.status.setAttribute("role", "status");
    this.empty = el("div", "empty");
    this.empty.hidden = true;
    shadow.append(this.headBox, this.box, this.stripBox, this.pill, this.empty, this.status);
    this.box.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    for (const name of ["pointerenter", "selectstart"]) this.box.addEventListener(name, async () => { selecting ??= await import("./logs-selection.js"); }, { once: true });
    this.box.addEventListener("wheel", (event) => this.#beyond(event.deltaY), { passive: true });
    this.box.addEventListener("click", (event) => this.#clicked(event));
    this.box.addEventListener("keydown", (event) => { if (!event.defaultPrevented && this.handleKey(event)) event.preventDefault(); });
    this.tall.addEventListener("pointerover", (event) => offer(event.target.closest(".row")));
    this.pill.addEventListener("click", () => { if (this.#picks) document.execCommand("copy"); else if (this.noticeText) this.notice = null; else this.resume(); });
    this.stripBox.addEventListener("click", (event) => this.#stripClicked(event));
  }

  // --- properties -----------------------------------------------------------------------------

  get client() { return (this.#client ||= new Api({ base: this.getAttribute("src") || undefined, token: this.#token })); }
  set client(client) { if (client === this.#client) return; this.#client = client; this.#later(); }
  set token(token) { this.#token = token; this.#client = null; this.#later(); }
  /** Parameters of GET /logs, in place of the attributes or beside them. */
  get filter() { return this.#filter; }
  set filter(filter) {
    if (JSON.stringify(filter) === JSON.stringify(this.#filter)) return;
    this.#filter = filter;
    this.#context = null;
    this.#later();
  }
  get state() { return this.#state; }
  get paused() { return this.#paused; }
  get missed() { return this.#missed; }
  get lines() { return this.#window.lines; }
  get cursor() { return this.view.cursor; }

  connectedCallback() {
    for (const name of ["client", "token", "filter"]) {
      if (Object.hasOwn(this, name)) { const value = this[name]; delete this[name]; this[name] = value; }
    }
    this.#started = true;
    this.#drawColumns();
    this.#resize = new ResizeObserver(() => this.#resized());
    for (const one of [this, this.box]) this.#resize.observe(one);
    this.watching = { visibilitychange: () => this.#hidden(), selectionchange: () => { if (selected(this.shadowRoot)) this.pause(); }, copy: (event) => this.#copy(event) };
    for (const [name, run] of Object.entries(this.watching)) document.addEventListener(name, run);
    this.#later();
  }

  #resized() {
    const atEnd = this.#lastTop > 0 && this.#lastTop >= this.#window.total - this.#height - 2;
    this.#height = this.box.clientHeight;
    if (this.#width !== this.box.clientWidth) {
      this.#width = this.box.clientWidth;
      this.#hold(() => { this.#window.base = this.clientWidth <= 640 ? NARROW : 20; this.#window.unmeasured(); });
    }
    if (atEnd) this.#to(Infinity); else this.draw();
  }

  disconnectedCallback() {
    this.#started = false;
    this.#stream?.close();
    this.#stream = null;
    this.#resize?.disconnect();
    this.#turn += 1;
    for (const [name, run] of Object.entries(this.watching)) document.removeEventListener(name, run);
  }

  attributeChangedCallback(name, before, value) {
    if (name === "height") { this.style.height = /^\d+$/.test(value) ? `${value}px` : value; return; }
    if (name === "wrap") {
      this.tall.classList.toggle("wrapped", this.hasAttribute("wrap"));
      this.#hold(() => this.#window.unmeasured());
      return;
    }
    if (name === "follow" && this.#turn && !this.#busy) { this.#followed(); return; }
    if (name === "columns") { this.view.columns = (value ?? "logger").split(/[ ,]+/).filter(Boolean); this.#drawColumns(); this.redraw(); return; }
    if (before !== value) this.#later();
  }

  /** What the lines must match: attributes, then the property. */
  get wanted() {
    const out = {};
    for (const name of this.getAttributeNames()) {
      const to = ALIASES[name] || name;
      if (FILTERS.includes(to)) out[to] = this.getAttribute(name);
    }
    return this.#context ? { ...this.#context } : { ...out, ...this.#filter };
  }

  #later() {
    if (!this.#started || this.#reload) return;
    this.#reload = requestAnimationFrame(() => { this.#reload = 0; if (this.#started) this.#load(); });
  }

  /** Load now; by itself it does so in the next frame, when all attributes are set. */
  begin() {
    if (!this.#reload) return;
    cancelAnimationFrame(this.#reload);
    this.#reload = 0;
    this.#load();
  }

  #emit(name, detail, cancelable = false) {
    return this.dispatchEvent(new CustomEvent(`structjob-${name}`, { detail, bubbles: true, composed: true, cancelable }));
  }

  // --- loading --------------------------------------------------------------------------------

  /** Begin anew: at the line of `at`, at the first error, at the end when following, at the top. */
  async #load() {
    const turn = ++this.#turn;
    this.#busy = true;
    this.#finished = false;
    this.#held = null;
    const wanted = this.#wanted, { at, first, within } = wanted ?? {};
    this.#wanted = null;
    if (!at) this.view.cursor = null;
    this.#unpick();
    this.#stream?.close();
    this.#stream = null;
    this.#following = this.hasAttribute("follow");
    this.#paused = false;
    this.#missed = { lines: 0, errors: 0 };
    this.#window.extras = [];
    this.#window.gaps.clear();
    this.#sessions.clear();
    if (this.view.find) this.find(this.view.find); else this.#matches = null;
    try {
      let gone = null;
      if (at) await this.#around(at, turn).catch((error) => { if (error.status !== 404) throw error; gone = at; });
      if (at && !gone) { /* it stands there */ }
      else if (first && ((within && (await this.#seek(first, turn, within))) || (await this.#seek(first, turn)))) { /* it stands there */ }
      else await this.#end(turn, !this.#following && !this.atEnd);
      if (turn !== this.#turn) return;
      this.#error = null;
      this.notice = gone && `The line of this link (${gone}) is not stored: it may have been deleted`;
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#wanted = wanted; // the next time it begins there
      this.#failed(error);
      if (!error.final) setTimeout(() => { if (turn === this.#turn) this.reload(); }, AGAIN);
      return;
    } finally {
      if (turn === this.#turn) this.#busy = false;
    }
    if (this.#following || this.hasAttribute("live")) this.#follow(turn);
    else this.#setState("ended");
    this.#loadStrip(turn);
  }

  /** The attribute follow came or went, and nothing else: what is read stays where it is. */
  #followed() {
    const turn = this.#turn;
    requestAnimationFrame(() => {
      // it is loaded anew
      if (turn !== this.#turn || this.#reload || !this.#started) return;
      if (!this.hasAttribute("follow")) this.#finish(turn);
      else if (!this.#stream) {
        this.#finished = false;
        this.#following = true;
        if (this.#detached || this.#top < this.#window.total - this.#height - 2) this.#pause();
        this.#follow(turn);
      }
    });
  }

  /** What was followed has ended: take its last lines, then no more. */
  async #finish(turn) {
    try {
      for (let from = this.#lastLine(); from && !this.#detached;) {
        const page = await this.client.listLogs({ ...this.wanted, ...from, limit: PAGE, order: "asc" });
        if (turn !== this.#turn || this.hasAttribute("follow")) return;
        this.#take(page.items);
        from = page.next_cursor && { cursor: page.next_cursor };
      }
    } catch (error) { this.#failed(error); }
    if (turn !== this.#turn || this.hasAttribute("follow")) return;
    this.#stream?.close();
    this.#stream = null;
    this.#drawAll(); // to the last line, if it was followed
    this.#finished = true;
    this.#following = false;
    if (!this.#missed.lines) this.#paused = false;
    this.#drawPill();
    this.#setState("ended");
    this.#loadStrip(turn);
  }

  #lastLine() {
    const last = this.#window.lines.at(-1);
    return last ? { start: idOf(last) } : {};
  }

  /** Where the next load begins. */
  startAt(wanted) { this.#wanted = wanted; this.#later(); }

  /** Load anew in the next frame; what could not be loaded, where it was to begin. */
  reload() { this.#later(); }

  async #end(turn, top = false) {
    const page = await this.client.listLogs({ ...this.wanted, limit: PAGE, order: top ? "asc" : "desc" });
    if (turn !== this.#turn) return;
    this.#window.clear();
    this.#window.add(top ? page.items : page.items.reverse());
    this.#older = top ? null : page.next_cursor && { cursor: page.next_cursor };
    this.#newer = top ? page.next_cursor && { cursor: page.next_cursor } : null;
    this.#detached = Boolean(this.#newer);
    this.#drawAll();
    this.#to(top ? 0 : Infinity);
    this.#afterLoad(page);
  }

  async #around(id, turn) {
    const [before, after] = await Promise.all(["desc", "asc"].map((order) => this.client.listLogs({ ...this.wanted, start: id, order, limit: PAGE / 2 })));
    if (turn !== this.#turn) return false;
    this.#window.clear();
    this.#window.add(before.items.reverse());
    this.#window.add(after.items);
    this.#older = before.next_cursor && { cursor: before.next_cursor };
    this.#newer = after.next_cursor && { cursor: after.next_cursor };
    this.#detached = Boolean(this.#newer);
    this.view.cursor = id;
    if (this.#following) this.#pause();
    this.#drawAll();
    this.#show(id);
    this.#afterLoad(after);
    return true;
  }

  #afterLoad(page) {
    this.empty.hidden = this.#window.lines.length > 0;
    this.empty.textContent = this.#window.lines.length ? "" : page.partial ? "No line so far; the search goes on further back." : this.#following ? "No line yet. The first one will appear here." : "No line matches.";
    this.#lookForGaps(this.#window.lines);
    this.#emit("counts", { loaded: this.#window.lines.length, partial: page.partial });
    this.#fillUp();
  }

  /** Repeats that fold may leave most of the view empty: load on, within reason. */
  #fillUp() {
    const had = this.#window.lines.length;
    if ((!this.#older && !this.#newer) || this.#window.total >= this.#height) {
      if (this.noticeText === MORE) this.notice = null;
    } else if (had >= FILL) this.notice = MORE;
    // few requests, for folds may be of thousands
    else this.#more(this.#older ? "top" : "bottom", Math.min(FILL_PAGE, Math.max(PAGE, had)));
  }

  /** Where nothing can be scrolled, a wheel or a key loads what lies in its direction. */
  #beyond(by) {
    if (this.#window.total <= this.#height) this.#more(by < 0 ? "top" : "bottom");
    return false;
  }

  #failed(error) {
    this.#error = error;
    this.#emit("error", error);
    if (!this.#window.lines.length) {
      this.empty.hidden = false;
      this.empty.textContent = sentence(error.message) + (error.final ? "" : ` The lines are read again every ${AGAIN / 1000} seconds.`);
    } else this.notice = error.message;
  }

  #recovered() { if (this.#error) { this.#error = null; this.notice = null; } }

  async #more(end, limit = PAGE) {
    const from = end === "top" ? this.#older : this.#newer;
    if (!from || this.#loading.has(end)) return;
    this.#loading.add(end);
    const turn = this.#turn, short = this.#window.total <= this.#height;
    try {
      const page = await this.client.listLogs({ ...this.wanted, ...from, limit, order: end === "top" ? "desc" : "asc" });
      if (turn !== this.#turn) return;
      this.#hold(() => {
        const next = page.next_cursor && { cursor: page.next_cursor };
        if (end === "top") {
          this.#window.add(page.items.reverse(), "top");
          this.#older = next;
          if (this.#window.trim("bottom")) { this.#newer = { start: idOf(this.#window.lines.at(-1)) }; this.#detached = true; }
        } else {
          this.#window.add(page.items);
          this.#newer = next;
          this.#detached = Boolean(next);
          if (this.#window.trim("top")) this.#older = { start: idOf(this.#window.lines[0]) };
        }
        this.#lookForGaps(page.items);
      });
      this.#recovered();
    } catch (error) {
      this.#failed(error);
    } finally {
      this.#loading.delete(end);
    }
    if (turn !== this.#turn) return;
    this.draw();
    // a fold that grew holds no place
    if (short && end === "top") { if (this.view.cursor) this.#show(this.view.cursor); else this.#to(Infinity); }
    this.#fillUp();
  }

  async #lookForGaps(lines) {
    for (const line of lines) {
      if (this.#sessions.has(line.session_id) || this.#sessions.size > 20) continue;
      this.#sessions.add(line.session_id);
      const turn = this.#turn;
      this.client.listGaps(line.session_id).then((gaps) => {
        const list = gaps.filter((gap) => gap.reason !== "pruned");
        if (turn === this.#turn && list.length) this.#hold(() => this.#window.addGaps(line.session_id, list));
      }, () => { /* gaps are told again by the stream and the session's page */ });
    }
  }

  // --- following ------------------------------------------------------------------------------

  #follow(turn) {
    const last = this.#window.lines.at(-1);
    this.#stream = this.client.stream({ channels: this.channels, ...this.wanted, last: last && !this.#detached ? 500 : 1 }, {
      onLines: (lines, begins) => { if (turn === this.#turn) this.#receive(lines, begins); },
      onGap: (gap) => { if (turn === this.#turn) this.#hold(() => this.#window.addGaps(gap.session_id, [gap])); },
      onLag: (lag) => { if (turn === this.#turn) this.#hold(() => this.#window.note({ kind: "lag", lag })); },
      onReset: () => { if (turn === this.#turn) this.#later(); },
      onRows: (rows) => this.#emit("rows", rows),
      onState: (state, transport, retry) => { if (state === "live") this.#recovered(); this.#setState(state, transport, retry); },
      onError: (error) => this.#failed(error),
    });
  }

  #setState(state, transport, retry) {
    this.#state = state;
    this.#emit("state", { state, transport, retry, paused: this.#paused, missed: this.#missed, following: this.#following });
  }

  #receive(lines, begins) {
    if (this.#held) { this.#held.push(...lines); return; }
    const last = this.#window.lines.at(-1);
    if (begins && last && lines.length && !this.#detached && !lines.some((line) => this.#window.known.has(idOf(line)))) {
      this.#held = [...lines];
      this.#bridge(last);
    } else this.#take(lines);
  }

  /** What the server will not answer ends the following: lines without those before them would hide a loss. */
  #stop() {
    this.#held = null;
    this.#stream?.close();
    this.#stream = null;
    this.#setState("ended");
  }

  /** More came than a stream begins with: what lies between is read first. */
  async #bridge(last) {
    const turn = this.#turn, until = idOf(this.#held[0]);
    for (let from = { start: idOf(last) }; from;) {
      try {
        const page = await this.client.listLogs({ ...this.wanted, ...from, limit: 10 * PAGE, order: "asc" });
        if (turn !== this.#turn) return;
        this.#take(page.items);
        from = !page.items.some((line) => idOf(line) === until) && page.next_cursor && { cursor: page.next_cursor };
      } catch (error) {
        if (turn !== this.#turn) return;
        this.#failed(error);
        // the last line was deleted
        if (error.status === 404) { this.#held = null; this.#later(); return; }
        if (error.final) { this.#stop(); return; }
        await new Promise((resolve) => { setTimeout(resolve, 1000); });
        if (turn !== this.#turn) return;
      }
    }
    const held = this.#held;
    this.#held = null;
    this.#take(held);
  }

  #take(lines) {
    const w = this.#window;
    const room = !this.#detached && (!this.#paused || w.lines.length + lines.length <= MOST);
    const fresh = room ? w.add(lines) : w.unknown(lines);
    if (!fresh.length) return;
    const errors = fresh.filter((line) => line.level === "error" || line.level === "critical").length;
    if (this.#said.at === 0) setTimeout(() => this.#speak(), SPEAK);
    this.#said.at = 1; this.#said.lines += fresh.length; this.#said.errors += errors;
    if (this.#paused) {
      // What is read stays where it is: new lines stand below it, or are counted only.
      this.#missed = { lines: this.#missed.lines + fresh.length, errors: this.#missed.errors + errors };
      if (!room) { if (!this.#newer) this.#newer = { start: idOf(w.lines.at(-1)) }; this.#detached = true; }
      this.#drawPill();
    } else if (this.#detached) {
      this.resume();
      return;
    } else if (w.trim("top")) this.#older = { start: idOf(w.lines[0]) };
    this.empty.hidden = true;
    this.#lookForGaps(fresh);
    this.#emit("line", { lines: fresh, errors });
    this.#drawLines(fresh.length);
  }

  #speak() {
    const { lines, errors } = this.#said;
    this.#said = { lines: 0, errors: 0, at: 0 };
    if (lines) this.status.textContent = `${count(lines)} new ${lines === 1 ? "line" : "lines"}${errors ? `, ${count(errors)} ${errors === 1 ? "error" : "errors"}` : ""}`;
  }

  pause() { if (this.#following && !this.#paused) this.#pause(); }

  #pause() {
    this.#paused = true;
    this.#missed = { lines: 0, errors: 0 };
    this.#drawPill();
    this.#setState(this.#state, this.#stream?.transport);
  }

  /** Go to the newest line and follow. */
  async resume() {
    if (this.#finished) { this.#paused = false; this.#missed = { lines: 0, errors: 0 }; this.#drawPill(); await this.bottom(); return; }
    this.#paused = false;
    this.#following = true;
    this.#missed = { lines: 0, errors: 0 };
    this.view.cursor = null;
    this.#drawPill();
    if (this.#detached) await this.#end(this.#turn);
    else { this.draw(); this.#to(Infinity); }
    if (!this.#stream || this.#stream.state === "ended") this.#follow(this.#turn);
    else this.#setState(this.#state, this.#stream.transport);
  }

  #hidden() {
    clearTimeout(this.#away);
    if (document.visibilityState === "hidden") this.#away = setTimeout(() => this.pause(), AWAY);
  }

  /** Whether more lines are selected than the one that the cursor is on. */
  get #picks() { return this.view.picked.size > 1; }

  /** Text in place of the pill, such as that nothing is updated; null takes it away. */
  set notice(text) { this.noticeText = text; this.#drawPill(); }

  #drawPill() {
    const { lines, errors } = this.#missed;
    this.pill.hidden = !this.#paused && !this.noticeText && !this.#picks;
    this.pill.classList.toggle("plain", Boolean(this.noticeText) && !this.#picks);
    if (this.pill.hidden) { this.pill.replaceChildren(); return; }
    if (this.#picks) {
      const n = this.view.picked.size, more = n === this.#window.lines.length && (this.#older || this.#newer);
      this.pill.replaceChildren(
        el("span", "", el("b", "", `${count(n)}${more ? " loaded" : ""} lines`), this.#copied === this.view.picked ? " copied" : " selected"),
        el("span", "go", "Copy", el("kbd", "", "Ctrl\u200aC")));
      return;
    }
    if (this.noticeText) { this.pill.replaceChildren(el("b", "", this.noticeText)); return; }
    this.pill.replaceChildren(
      el("span", "", el("b", "", "Paused"), ` — ${lines ? `${count(lines)} new` : "nothing new"}`, errors ? ", " : "", errors ? el("span", "bad", `${count(errors)} ${errors === 1 ? "error" : "errors"}`) : ""),
      el("span", "go", "Resume", el("kbd", "", "r")));
  }

  // --- drawing --------------------------------------------------------------------------------

  /** Times are shown in another zone now: days begin elsewhere. */
  rezone() { this.#hold(() => this.#window.rezone()); this.redraw(); }

  /** Build all rows anew; the old ones stay until then. */
  redraw() { for (const [, row] of this.#rows) row.n = 0; this.draw(); }

  /** Build the row of a line anew. */
  #renew(key) { const row = this.#rows.get(key); if (row) row.n = 0; this.draw(); }

  draw() { if (!this.#frame) this.#frame = requestAnimationFrame(() => { this.#frame = 0; this.#drawAll(); }); }

  /** Draw *n* lines that have come: the first at once, but while lines pour in not in each frame,
   * and more rarely where each drawing replaces all that was seen, faster than a person reads. */
  #drawLines(n) {
    this.#undrawn += n;
    const pouring = this.#undrawn > this.#rows.size;
    const wait = (pouring ? DRAW_POURING : DRAW_EVERY) - (performance.now() - this.#drawn);
    if (wait <= 0) this.draw();
    else this.#drawSoon(wait);
  }

  #drawSoon(wait) { this.#drawing ||= setTimeout(() => { this.#drawing = 0; this.draw(); }, wait); }

  get #top() { return this.box.scrollTop; }
  /** Whether the newest line stays in view. */
  get #sticks() { return this.#following && !this.#paused && !this.#detached; }

  #to(y, tries = 3) {
    if (y < Infinity || !this.#sticks) this.#scrollTo(Math.min(y, Math.max(0, this.#window.total - this.#height)));
    // to the newest line, where that stays in view
    this.#drawAll();
    // rows are as high as they measure
    if (y === Infinity && this.#window.total - this.#height > this.#top + 1 && tries) this.#to(y, tries - 1);
  }

  #scrollTo(top) {
    this.tall.style.height = `${this.#window.total}px`;
    if (Math.abs(this.box.scrollTop - top) >= 0.5) this.box.scrollTop = top;
    this.#lastTop = this.box.scrollTop;
  }

  /** Change the window while the first visible row stays where it is. */
  #hold(change) {
    const atEnd = this.#following && !this.#paused;
    const index = this.#window.items.length ? this.#window.at(this.#top) : -1;
    const item = index >= 0 ? this.#window.items[index] : null;
    const offset = item ? this.#top - this.#window.tops[index] : 0;
    change();
    if (atEnd) { this.draw(); return; }
    this.#window.layout();
    if (item) {
      const now = item.kind === "line" ? this.#window.items.findIndex((one) => one.key === item.key) : this.#window.items.indexOf(item);
      if (now >= 0) this.#scrollTo(this.#window.tops[now] + offset);
    }
    this.draw();
  }

  #drawAll() {
    const pouring = this.#sticks && this.#undrawn > this.#rows.size;
    this.#drawn = performance.now();
    this.#undrawn = 0;
    const w = this.#window, height = this.#height || 300, overscan = pouring ? 0 : OVERSCAN;
    this.tall.classList.toggle("jobs", w.several || !this.wanted.job);
    for (let pass = 0; pass < 3; pass += 1) {
      // known, so that the browser lays out once, with the new rows
      const end = Math.max(0, w.total - height);
      const top = this.#sticks ? end : Math.min(this.#top, end);
      this.tall.style.height = `${w.total}px`;
      if (!w.items.length) { this.#rows.clear(); this.tall.replaceChildren(); break; }
      const first = w.at(Math.max(0, top - overscan)), last = w.at(top + height + overscan);
      const anchor = w.at(top), offset = top - w.tops[anchor];
      this.#drawRows(first, last);
      let moved = false;
      for (let i = first; i <= last; i += 1) {
        const measured = this.#rows.get(w.items[i].key).offsetHeight;
        if (measured) moved = w.measure(w.items[i], i, measured) || moved;
      }
      w.layout();
      this.#scrollTo(this.#sticks ? Math.max(0, w.total - height) : w.tops[anchor] + offset);
      if (!moved) break;
    }
    this.box.setAttribute("aria-activedescendant", this.view.cursor && this.#rows.has(this.view.cursor) ? `r${this.view.cursor}` : "");
    this.#drawFrame();
    // the rows beyond the edges, once there is time
    if (pouring) this.#drawSoon(DRAW_POURING);
  }

  /** Have the rows of these items, in their order, and no others. */
  #drawRows(first, last) {
    const { items, tops } = this.#window;
    const kept = new Map();
    for (const i of this.#withSelected(first, last)) {
      const item = items[i];
      let row = this.#rows.get(item.key);
      if (row && row.item !== item && item.kind === "line" && row.item.kind === "line") row.item = item;
      if (!row || row.item !== item || row.n !== item.lines) {
        row = rowNode(item, this.view);
        row.n = item.lines;
      } else mark(row, this.view);
      row.style.transform = `translateY(${tops[i]}px)`;
      kept.set(item.key, row);
    }
    for (const [key, row] of this.#rows) if (kept.get(key) !== row) row.remove();
    this.#rows = kept;
    let at = this.tall.firstChild;
    for (const row of kept.values()) {
      if (row === at) at = at.nextSibling; else this.tall.insertBefore(row, at);
    }
  }

  /** The rows from *first* to *last*, and those in which selected text begins and ends: without them
   * the selection would be lost. */
  #withSelected(first, last) {
    const drawn = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    const range = this.#rows.size ? selected(this.shadowRoot) : null;
    const ends = range ? Object.values(selecting.endsOf(range)).map((row) => (row ? this.#index(row.item.key) : -1)) : [];
    return [...new Set([...ends.filter((i) => i >= 0), ...drawn])].sort((a, b) => a - b);
  }

  #index(key) { return this.#window.items.findIndex((one) => one.key === key); }

  #drawColumns() {
    const columns = `calc(12ch + 6px) 26px ${this.view.columns.map((one) => (one === "step" || one === "level" ? "88px" : one === "job" ? "112px" : "98px")).join(" ")} minmax(0, 1fr)`;
    this.box.style.setProperty("--columns", columns);
    this.headBox.style.setProperty("--columns", columns);
    this.headBox.hidden = !this.hasAttribute("head");
    const names = { job: "Job", step: "Step", logger: "Logger" };
    this.headBox.replaceChildren(el("span", "", "Time"), el("span", "", "L"), ...this.view.columns.map((one) => el("span", "", names[one] || one.replace(/^attr\./, ""))), el("span", "", "Message and attributes"));
    this.headBox.firstChild.style.paddingLeft = "0";
    this.headBox.children[1].style.textAlign = "center";
  }

  #scrolled() {
    const top = this.#top;
    const byUs = top === this.#lastTop;
    if (!byUs && this.#following) {
      // The end of what is drawn: lines that came since, or went at the top, move nothing yet.
      const bottom = this.box.scrollHeight - this.#height;
      if (top < this.#lastTop - 1 && top < bottom - 2 && !this.#paused) this.#pause();
      else if (this.#paused && top >= bottom - 2 && !this.#detached && top > this.#lastTop) this.resume();
    }
    this.#lastTop = top;
    // what is followed was drawn where it was scrolled to
    if (!byUs || !this.#sticks) this.draw();
    if (top < NEAR) this.#more("top");
    if (this.#window.total - top - this.#height < NEAR) this.#more("bottom");
  }

  // --- strip ----------------------------------------------------------------------------------

  async #loadStrip(turn) {
    try {
      const answer = await this.client.countLogsByTime({ ...this.wanted, buckets: STRIP_BUCKETS });
      if (turn !== this.#turn) return;
      this.#strip = answer;
      this.#drawStrip();
      this.#emit("counts", { histogram: answer });
    } catch { /* no strip: the lines are what matters */ }
  }

  #drawStrip() {
    const buckets = this.#strip?.bars ?? [];
    const ns = "http://www.w3.org/2000/svg";
    const svg = document.createElementNS(ns, "svg");
    svg.setAttribute("viewBox", `0 0 30 ${buckets.length || 1}`);
    svg.setAttribute("preserveAspectRatio", "none");
    const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);
    const most = Math.max(1, ...buckets.map((one) => sum(one.counts)));
    const rect = (className, x, y, width, height) => {
      const node = document.createElementNS(ns, "rect");
      for (const [name, value] of Object.entries({ class: className, x, y, width, height })) node.setAttribute(name, value);
      svg.append(node);
    };
    buckets.forEach((one, i) => {
      const n = sum(one.counts);
      if (n) rect("v", 4, i + 0.15, Math.max(1.5, 16 * Math.sqrt(n / most)), 0.7);
      if (one.counts.error || one.counts.critical) rect("e", 21, i, 8, 1);
      else if (one.counts.warning) rect("w", 24, i + 0.2, 4, 0.6);
    });
    this.stripBox.replaceChildren(svg, (this.frameBox = el("div", "frame")));
    this.#drawFrame();
  }

  #drawFrame() {
    const buckets = this.#strip?.bars;
    if (!this.frameBox || !buckets?.length || !this.#window.items.length) return;
    const start = Date.parse(buckets[0].since), length = Date.parse(buckets.at(-1).until) - start || 1;
    // the strip counts by bucket
    const whole = (share, round) => round(share * buckets.length) / buckets.length;
    const time = (index) => { for (let i = index; i >= 0; i -= 1) { const item = this.#window.items[i]; if (item?.line) return Date.parse(item.line.ts); } return start; };
    const first = time(this.#window.at(this.#top)), last = time(this.#window.at(this.#top + this.#height));
    const height = this.stripBox.clientHeight;
    const y = Math.min(height - 6, Math.max(0, whole((first - start) / length, Math.floor) * height));
    this.frameBox.style.top = `${y}px`;
    this.frameBox.style.height = `${Math.min(height - y, Math.max(6, whole((last - start) / length, (n) => Math.floor(n) + 1) * height - y))}px`;
  }

  async #stripClicked(event) {
    const buckets = this.#strip?.bars;
    if (!buckets?.length) return;
    const share = (event.clientY - this.stripBox.getBoundingClientRect().top) / this.stripBox.clientHeight;
    const start = Date.parse(buckets[0].since);
    const since = new Date(start + share * (Date.parse(buckets.at(-1).until) - start)).toISOString();
    const page = await this.client.listLogs({ ...this.wanted, since, limit: 1 });
    if (page.items[0]) await this.jump(idOf(page.items[0]));
  }

  // --- moving ---------------------------------------------------------------------------------

  #show(id) {
    let index = this.#window.indexOf(id);
    if (index < 0) return false;
    // what one stands on is a row of its own
    if (this.#window.items[index].kind === "fold") {
      this.#window.unfolded.add(this.#window.items[index].first);
      this.#window.build();
      index = this.#window.indexOf(id);
    }
    const item = this.#window.items[index];
    this.view.cursor = item.key;
    this.#window.layout();
    const top = this.#window.tops[index], height = this.#window.height(item);
    if (top < this.#top + 40 || top + height > this.#top + this.#height - 40) this.#to(Math.max(0, top - this.#height / 3));
    this.#renew(item.key);
    // once its height is known: it may be open
    requestAnimationFrame(() => this.#fit(item.key));
    return true;
  }

  /** Have the whole of a row in view, or as much as fits. */
  #fit(key) {
    const w = this.#window, index = w.items.findIndex((one) => one.key === key);
    if (index < 0 || this.view.cursor !== key) return;
    w.layout();
    if (this.view.find && !this.view.open.has(key) && this.#hides(key)) { this.view.open.add(key); this.#renew(key); requestAnimationFrame(() => this.#fit(key)); return; }
    const top = w.tops[index], over = top + w.height(w.items[index]) + 44 - this.#top - this.#height;
    if (over > 0) this.#to(Math.min(this.#top + over, Math.max(0, top - 40)));
    const found = this.view.find && this.#rows.get(key)?.querySelector(".msg mark"), { bottom } = this.box.getBoundingClientRect();
    const below = found ? found.getBoundingClientRect().bottom - bottom : 0;
    if (below > 0) this.#to(this.#top + below + this.#height / 3);
  }

  /** Whether the text that is sought is in a line's message, but beyond what its row shows. */
  #hides(key) {
    const text = this.#rows.get(key)?.querySelector(".text"), found = text?.querySelector(".msg mark");
    if (found) return found.getBoundingClientRect().left > text.getBoundingClientRect().right - 24;
    return Boolean(text) && finder(this.view.find).test(this.lineOf(key)?.message ?? "");
  }

  /** Stand on a line, wherever it is: "SESSION:SEQ". */
  async jump(id) {
    if (this.#following && !this.#paused) this.#pause();
    return this.#show(id) || this.#around(id, this.#turn).catch((error) => this.#failed(error));
  }

  /** Stand on the first line of a level or above. */
  async first(level = "error") { return this.#seek(level, this.#turn); }

  async #seek(level, turn, within = {}) {
    const page = await this.client.listLogs({ ...this.wanted, ...levelled(this.wanted, level), ...within, order: "asc", limit: 1 });
    if (turn !== this.#turn || !page.items[0]) return false;
    const id = idOf(page.items[0]);
    this.view.open.add(id);
    if (this.#following && !this.#paused) this.#pause();
    return this.#show(id) || this.#around(id, turn);
  }

  /** The next (or previous) line that matches *more* besides: an error, a text. */
  async #next(more, back) {
    const from = this.view.cursor?.replace(/^f/, "") ?? (this.#window.items.length ? this.#firstVisible() : null);
    const page = await this.client.listLogs({ ...this.wanted, ...more, ...(from ? { start: from } : {}), order: back ? "desc" : "asc", limit: 2 }).catch((error) => { this.#failed(error); return null; });
    if (!page) return;
    const next = page.items.find((line) => idOf(line) !== this.view.cursor);
    if (next) { if (more.level) this.view.open.add(idOf(next)); await this.jump(idOf(next)); }
    else this.status.textContent = "no further match";
  }

  #firstVisible() {
    for (let i = this.#window.at(this.#top); i < this.#window.items.length; i += 1) if (this.#window.items[i].line) return idOf(this.#window.items[i].line);
    return null;
  }

  nextError(back = false) { return this.#next(levelled(this.wanted, "error"), back); }
  nextMatch(back = false) { return this.view.find ? this.#next({ text: this.view.find }, back) : undefined; }

  /** Mark a text; the count of lines that have it is the database's. */
  async find(text) {
    this.view.find = text;
    this.redraw();
    if (!text) { this.#matches = null; this.#emit("counts", { matches: null }); return; }
    const turn = (this.#matches = {});
    const answer = await this.client.countLogs({ ...this.wanted, text }).catch((error) => ({ error }));
    if (this.#matches === turn) this.#emit("counts", { matches: answer });
  }

  /** Take all filters off around a line; once more puts them back. */
  context(id = this.view.cursor ?? this.#firstVisible()) {
    if (!id) return;
    this.#context = this.#context ? null : this.#filter.job || this.getAttribute("job") ? { job: this.wanted.job } : {};
    this.#emit("context", { on: Boolean(this.#context) });
    this.startAt({ at: id });
  }
  get inContext() { return Boolean(this.#context); }

  #move(by) {
    const w = this.#window;
    if (!w.items.length) return;
    let index = this.view.cursor ? w.items.findIndex((one) => one.key === this.view.cursor) : -1;
    if (index < 0) {
      // Without a cursor the first line that is seen is chosen; k on a screen that begins with the
      // first line of all would go beyond it.
      const first = w.at(this.#top);
      index = by > 0 ? first - 1 : Math.max(first, w.items.findIndex((one) => one.line) + 1);
    }
    do index += by; while (w.items[index] && !w.items[index].line);
    const item = w.items[index];
    if (!item) { this.#more(by < 0 ? "top" : "bottom"); return; }
    if (this.#following && !this.#paused) this.#pause();
    if (this.#pickFrom) this.#pick(this.#between(this.#pickFrom, item.key));
    this.view.cursor = item.key;
    w.layout();
    const top = w.tops[index], bottom = top + w.height(item);
    if (top < this.#top) this.#to(top);
    else if (bottom > this.#top + this.#height) this.#to(bottom - this.#height);
    this.draw();
    this.#emit("cursor", { line: item.line, id: item.key });
  }

  async top() {
    if (this.#following && !this.#paused) this.#pause();
    if (this.#older) { try { await this.#end(this.#turn, true); } catch (error) { this.#failed(error); return; } }
    else this.#to(0);
    this.view.cursor = this.#window.lines.length ? idOf(this.#window.lines[0]) : null;
    this.draw();
  }
  async bottom() {
    if (this.#following) { await this.resume(); return; }
    if (this.#newer) { try { await this.#end(this.#turn); } catch (error) { this.#failed(error); return; } }
    this.#to(Infinity);
    this.view.cursor = this.#window.lines.length ? idOf(this.#window.lines.at(-1)) : null;
    this.draw();
  }

  /** The lines of two rows and of those between them, also of folds. */
  #between(from, to) {
    const [first, last] = [this.#index(from), this.#index(to)].sort((a, b) => a - b);
    const rows = first < 0 ? [] : this.#window.items.slice(first, last + 1).filter((one) => one.line);
    if (!rows.length) return [];
    const { lines } = this.#window, end = rows.at(-1);
    return lines.slice(lines.indexOf(rows[0].line), lines.indexOf(end.until ?? end.line) + 1);
  }

  #pick(lines) {
    this.view.picked = new Set(lines.map(idOf));
    if (lines.length && selected(this.shadowRoot)) getSelection().removeAllRanges();
    this.#drawPill();
    this.draw();
  }

  #unpick() { this.#pickFrom = null; this.#pick([]); }

  /** The selected lines as text, one a line; without a selection the line of the cursor. */
  selection() {
    const wanted = this.view.picked.size ? this.view.picked : new Set([this.view.cursor]);
    return textOf(this.#window.lines.filter((line) => wanted.has(idOf(line))));
  }

  /** Copy the lines that are selected, or in which text is selected, rather than their columns one below the other. */
  #copy(event) {
    const range = selected(this.shadowRoot);
    if (event.defaultPrevented || event.composedPath()[0].matches?.("input, textarea") || (!range && String(getSelection()))) return;
    let text = null;
    if (range) {
      const { first, last } = selecting.endsOf(range);
      if (first && last) text = first === last ? selecting.partOf(range, first) : textOf(this.#between(first.item.key, last.item.key));
    } else if (this.view.picked.size) {
      text = this.selection();
      this.#copied = this.view.picked;
      this.#drawPill();
    }
    if (!text) return;
    event.clipboardData.setData("text/plain", text);
    event.preventDefault();
  }

  lineOf(id = this.view.cursor) { return this.#window.lines.find((line) => idOf(line) === id); }

  toggle(id) {
    const line = this.lineOf(id);
    if (!line) return;
    if (this.#following && !this.#paused) this.#pause();
    this.view.cursor = id;
    if (this.#emit("open", { line }, true)) {
      if (!this.view.open.delete(id)) this.view.open.add(id);
    }
    this.#renew(id);
  }

  /** Take a key; return whether it meant something here. */
  handleKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key !== "a" || event.altKey || !this.#window.lines.length) return false;
      this.pause();
      this.#pick(this.#window.lines);
      return true;
    }
    const cursor = this.view.cursor;
    const todo = {
      j: () => this.#move(1), k: () => this.#move(-1), ArrowDown: () => this.#move(1), ArrowUp: () => this.#move(-1),
      g: () => this.top(), G: () => this.bottom(), Home: () => this.top(), End: () => this.bottom(),
      e: () => this.nextError(), E: () => this.nextError(true), n: () => this.nextMatch(), N: () => this.nextMatch(true),
      PageUp: () => this.#beyond(-1), PageDown: () => this.#beyond(1), r: () => this.resume(), c: () => this.context(), w: () => this.toggleAttribute("wrap"),
      v: () => { this.#pickFrom = this.#pickFrom ? null : cursor ?? this.#firstVisible(); if (this.#pickFrom) { this.view.cursor = this.#pickFrom; this.#pick(this.#between(this.#pickFrom, this.#pickFrom)); } this.draw(); },
      Enter: () => { if (cursor?.startsWith("f")) this.#unfold(cursor.slice(1)); else if (cursor) this.toggle(cursor); },
      Escape: () => {
        if (this.#pickFrom || this.view.picked.size) { this.#unpick(); return true; }
        if (this.#context) { this.context(cursor); return true; }
        if (cursor && this.view.open.delete(cursor)) { this.#renew(cursor); return true; }
        return false;
      },
    }[event.key];
    if (!todo) return false;
    if (["n", "N"].includes(event.key) && !this.view.find) return false;
    return todo() !== false;
  }

  #unfold(key) {
    this.#hold(() => { if (!this.#window.unfolded.delete(key)) this.#window.unfolded.add(key); this.#window.build(); });
    this.view.cursor = key;
    this.draw();
  }

  #clicked(event) {
    const row = event.composedPath().find((one) => one.item);
    if (!row) return;
    const { item } = row;
    const button = event.composedPath().find((one) => one.dataset?.act);
    const act = button?.dataset.act;
    if (item.kind === "fold") { this.#unfold(item.first); return; }
    if (act === "load") { this.#fill(item.lag); return; }
    if (item.kind !== "line") return;
    const id = item.key;
    if (act === "context") this.context(id);
    else if (act === "link") { this.view.cursor = id; this.#emit("link", { id, line: item.line }); }
    else if (act === "whole") { this.view.whole.add(id); this.#renew(id); }
    else if (act === "open") { this.toggle(id); }
    else if (act) this.#emit("filter", { act, name: button.dataset.name, value: item.line.attrs[button.dataset.name] });
    else if (event.target.closest?.(".level")) this.#emit("filter", { act: event.shiftKey ? "exclude" : "filter", name: "level", value: item.line.level, field: true });
    else if (event.shiftKey && this.view.cursor) this.#pick(this.#between(this.view.cursor, id));
    else if (!selected(this.shadowRoot)) { this.#unpick(); this.toggle(id); }
  }

  async #fill(lag) {
    const page = await this.client.listLogs({ ...this.wanted, cursor: lag.from, limit: 10_000 });
    this.#hold(() => { this.#window.extras = this.#window.extras.filter((one) => one.item.lag !== lag); this.#window.add(page.items); this.#window.build(); });
  }
}

/** A filter for *level* and above that does not widen a narrower one. */
function levelled(wanted, level) {
  return wanted.level === "critical" ? {} : { level, levels: undefined };
}

function textOf(lines) {
  return lines.map((line) => {
    const error = errorOf(line);
    const attrs = Object.entries(line.attrs || {}).filter(([key, value]) => !error || (key !== "exception" && value !== error.traceback)).map(([key, value]) => ` ${key}=${typeof value === "string" ? value : JSON.stringify(value)}`).join("");
    const trace = error ? `\n${error.traceback.trimEnd()}`.replaceAll("\n", "\n    ") : "";
    return `${line.ts} ${line.level.padEnd(8)} ${line.message}${attrs}${trace}`;
  }).join("\n");
}

for (const name of ["src", "type", "job", "step", "level", "q", "correlation", "height", "theme"]) {
  Object.defineProperty(StructjobLogs.prototype, name, {
    get() { return this.getAttribute(name); },
    set(value) { if (value === null || value === undefined) this.removeAttribute(name); else this.setAttribute(name, value); },
  });
}
for (const name of ["follow", "wrap"]) {
  Object.defineProperty(StructjobLogs.prototype, name, {
    get() { return this.hasAttribute(name); },
    set(value) { this.toggleAttribute(name, Boolean(value)); },
  });
}

if (!customElements.get("structjob-logs")) customElements.define("structjob-logs", StructjobLogs);

// @ts-check
// structjob's HTTP API and live streams, as the pages use them; other pages import client.js.

/**
 * @typedef {Record<string, string | number | boolean | null | undefined | (string | number)[]>} Params
 * @typedef {{session_id: number, seq: number, ts: string, level: string, message: string,
 *   attrs: Record<string, any>, [name: string]: any}} Line
 * @typedef {{session_id: number, first_seq: number, last_seq: number, count: number, reason: string,
 *   closed?: boolean}} Gap
 * @typedef {{skipped: number, errors: number, from: string, to: string}} Lag
 * @typedef {"connecting" | "live" | "reconnecting" | "ended"} State
 * @typedef {"ws" | "sse" | "polling"} Transport
 * @typedef {object} Handlers
 * @property {(lines: Line[], begins: boolean) => void} [onLines] Lines in their order, each once.
 *   *begins*: they are the first since a connection without a cursor; with `last`, there may be
 *   more before them than that.
 * @property {(gap: Gap) => void} [onGap] Lines that were lost, or one gap that a late line closed.
 * @property {(rows: any) => void} [onRows] Jobs, attempts and steps that changed, as whole rows.
 * @property {(lag: Lag) => void} [onLag] Lines that this page was too slow for; they can be loaded.
 * @property {(reason: string) => void} [onReset] What was shown must be loaded anew.
 * @property {(state: State, transport: Transport, retryInMs?: number) => void} [onState]
 * @property {(error: Error) => void} [onError] What will not go away by trying again.
 */

/**
 * The JSON that a path answers, by the name that the OpenAPI document has for it.
 * @template {keyof import("./openapi.js").operations} Name
 * @typedef {import("./openapi.js").operations[Name]["responses"] extends {200: {content: {"application/json": infer Found}}} ? Found
 *   : import("./openapi.js").operations[Name]["responses"] extends {202: {content: {"application/json": infer Found}}} ? Found : never} Answer
 */

/** An answer of the server that is not a success: an RFC 9457 problem. */
export class Problem extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body?.detail || body?.title || `the server answered ${status}`);
    this.name = "Problem";
    this.status = status;
    this.title = body?.title || "";
    this.parameter = body?.parameter;
    this.body = body;
  }

  /** Whether asking again is of no use, on any transport. */
  get final() { return [400, 401, 403, 404, 410, 414].includes(this.status); }
}

/** @param {Params} [params] */
export function query(params = {}) {
  const out = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    for (const one of Array.isArray(value) ? value : [value]) {
      if (one !== undefined && one !== null && one !== "") out.append(name, String(one));
    }
  }
  return out.toString();
}

const SKEW = 5000;
const LARGE = /[:,[]\s*-?(?:\d{17,}|9\d{15})\s*[,\]}]/;

/**
 * JSON as an object. An integer beyond 2^53, which a number cannot hold, comes as its digits.
 * @param {string} text
 */
export function parse(text) {
  if (!LARGE.test(text)) return JSON.parse(text);
  /** @type {any} a new argument, which older browsers do not pass */
  const exact = (/** @type {string} */ _, /** @type {any} */ value, /** @type {any} */ at) => (
    typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && /^-?\d+$/.test(at?.source) ? at.source : value);
  return JSON.parse(text, exact);
}

/** @param {Response} answer */
async function json(answer) {
  const text = await answer.text();
  try { return parse(text); } catch { return null; } // nothing, or a proxy's page
}

/** @param {string | number} one a part of a path */
export const part = (one) => encodeURIComponent(one);

/** The API of one server, as far as the pages use it. */
export class Api {
  #token;

  /**
   * @param {{base?: string | URL, token?: string}} [options] base: where structjob is mounted, such
   *   as "https://host/ops/jobs/" (default: where this module came from). token: sent as a bearer
   *   token; not needed where the browser has signed in.
   */
  constructor({ base, token } = {}) {
    const root = new URL(base ?? new URL("../../", import.meta.url), globalThis.location?.href);
    if (!root.pathname.endsWith("/")) root.pathname += "/";
    root.search = root.hash = "";
    /** @readonly */
    this.root = root;
    this.#token = token;
    /** How many milliseconds this machine's clock is ahead of the server's; 0 for a few seconds. */
    this.clockAhead = 0;
  }

  /** @param {string} path below /api/v1/ @param {Params | URLSearchParams} [params] */
  url(path, params) {
    const url = new URL("api/v1/" + path, this.root);
    url.search = params instanceof URLSearchParams ? params.toString() : query(params);
    return url;
  }

  /** @param {string | null} date when the server answered, in whole seconds */
  #compare(date) {
    const ahead = Date.now() - Date.parse(date ?? "") - 500;
    if (!Number.isNaN(ahead)) this.clockAhead = Math.abs(ahead) > SKEW ? ahead : 0;
  }

  /**
   * Ask; the answer's JSON comes back.
   * @param {string} path @param {Params | URLSearchParams} [params]
   * @param {{signal?: AbortSignal, method?: string, body?: any}} [options]
   * @returns {Promise<any>}
   * @throws {Problem} if the server refuses or fails
   */
  async request(path, params, options) {
    return json(await this.response(path, params, options));
  }

  /**
   * Ask; the answer comes back as `fetch` has it.
   * @param {string} path @param {Params | URLSearchParams} [params]
   * @param {{signal?: AbortSignal, method?: string, body?: any, accept?: string}} [options]
   * @returns {Promise<Response>}
   * @throws {Problem} if the server refuses or fails
   */
  async response(path, params, { signal, method = "GET", body, accept = "application/json" } = {}) {
    const answer = await fetch(this.url(path, params), {
      method,
      signal,
      credentials: "same-origin",
      headers: {
        Accept: accept,
        ...(this.#token ? { Authorization: `Bearer ${this.#token}` } : {}),
        ...(method === "GET" ? {} : { "X-Structjob": "1", "Content-Type": "application/json" }),
      },
      body: JSON.stringify(body),
    }).catch((error) => { throw error.name === "AbortError" ? error : new Error("the server does not answer", { cause: error }); }); // a browser says "Failed to fetch"
    this.#compare(answer.headers.get("date"));
    if (!answer.ok) throw new Problem(answer.status, await json(answer));
    return answer;
  }

  /** @param {string} path @param {Params} [params] @param {AbortSignal} [signal] */
  #get(path, params, signal) { return this.request(path, params, { signal }); }
  /** @param {string} path @param {any} body */
  #post(path, body) { return this.request(path, {}, { method: "POST", body }); }

  // One method a path, with the name that the OpenAPI document has for it. Those that few pages or
  // none use are in client.js: each page loads this script.

  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listJobs">>} */
  listJobs(filter, signal) { return this.#get("jobs", filter, signal); }
  /** @param {string} id any id of the job @param {Params} [params] events @param {AbortSignal} [signal] @returns {Promise<Answer<"getJob">>} */
  getJob(id, params, signal) { return this.#get(`jobs/${part(id)}`, params, signal); }
  /** @param {string} id @param {Params} [params] depth and limit @param {AbortSignal} [signal] @returns {Promise<Answer<"getTree">>} */
  getTree(id, params, signal) { return this.#get(`jobs/${part(id)}/tree`, params, signal); }
  /** @param {string} id @param {Params} [params] attempt @param {AbortSignal} [signal] @returns {Promise<Answer<"listSteps">>} */
  listSteps(id, params, signal) { return this.#get(`jobs/${part(id)}/steps`, params, signal); }
  /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Answer<"listAttemptsOfJob">>} */
  listAttemptsOfJob(id, signal) { return this.#get(`jobs/${part(id)}/attempts`, {}, signal); }
  /** @param {string} id @param {{reason?: string, force?: boolean}} [body] @returns {Promise<Answer<"cancelJob">>} */
  cancelJob(id, body = {}) { return this.#post(`jobs/${part(id)}/cancel`, body); }

  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listLogs">>} */
  listLogs(filter, signal) { return this.#get("logs", filter, signal); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countLogs">>} */
  countLogs(filter, signal) { return this.#get("logs/count", filter, signal); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countLogsByTime">>} */
  countLogsByTime(filter, signal) { return this.#get("logs/histogram", filter, signal); }

  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listErrors">>} */
  listErrors(filter, signal) { return this.#get("errors", filter, signal); }
  /** @param {string} fingerprint or its beginning @param {AbortSignal} [signal] @returns {Promise<Answer<"getError">>} */
  getError(fingerprint, signal) { return this.#get(`errors/${part(fingerprint)}`, {}, signal); }
  /** @param {string} fingerprint @param {{by?: string}} [body] @returns {Promise<Answer<"resolveError">>} */
  resolveError(fingerprint, body = {}) { return this.#post(`errors/${part(fingerprint)}/resolve`, body); }
  /** @param {string} fingerprint @param {{by?: string}} [body] @returns {Promise<Answer<"reopenError">>} */
  reopenError(fingerprint, body = {}) { return this.#post(`errors/${part(fingerprint)}/reopen`, body); }

  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listSessions">>} */
  listSessions(filter, signal) { return this.#get("sessions", filter, signal); }
  /** @param {number | string} number @param {AbortSignal} [signal] @returns {Promise<Answer<"getSession">>} */
  getSession(number, signal) { return this.#get(`sessions/${part(number)}`, {}, signal); }
  /** @param {number | string} number @param {AbortSignal} [signal] @returns {Promise<Answer<"listGaps">>} */
  listGaps(number, signal) { return this.#get(`sessions/${part(number)}/gaps`, {}, signal); }

  /**
   * Follow lines and states: over a WebSocket, else server-sent events, else polling.
   * @param {Params & {channels?: string[]}} subscription channels, filter, `last` or `after`
   * @param {Handlers} handlers
   * @returns {Stream}
   */
  stream(subscription, handlers) {
    return new Stream(this, this.#token, subscription, handlers);
  }
}

const HELLO_WS = 3000, HELLO_SSE = 5000, POLL = 2000, UP_AGAIN = 300_000, HIDDEN = 10_000, HIDDEN_SSE = 1000;

/** A subscription that outlives connections: each line comes once, in order, whatever breaks. */
export class Stream {
  #api; #token; #subscription; #handlers;
  #generation = 0;
  #tries = 0;
  /** @type {Transport[]} */ #ladder = ["ws", "sse", "polling"];
  #rung = 0;
  /** @type {WebSocket | null} */ #socket = null;
  /** @type {AbortController | null} */ #abort = null;
  /** @type {any} */ #timer = null;
  /** @type {any} */ #watch = null;
  /** @type {any} */ #hiding = null;
  #heartbeat = 15_000;
  /** @type {Transport | null} The transport of the last state that was told. */ #told = null;
  #downSince = 0;
  #begins = false;
  #visibility = () => this.#shown();
  #online = () => { if (this.state !== "ended" && globalThis.document?.visibilityState !== "hidden") this.#anew(); };

  /**
   * @param {Api} api @param {string | undefined} token
   * @param {any} subscription @param {Handlers} handlers
   */
  constructor(api, token, subscription, handlers) {
    this.#api = api;
    this.#token = token;
    this.#subscription = subscription;
    this.#handlers = handlers;
    /** @type {string | null} The last cursor that was applied. */
    this.cursor = subscription.after ?? null;
    /** @type {State} */
    this.state = "connecting";
    /** @type {Transport} */
    this.transport = "ws";
    /** How far the server's reading is behind, in milliseconds. */
    this.behindMs = 0;
    if (typeof WebSocket === "undefined") this.#rung = 1;
    globalThis.document?.addEventListener("visibilitychange", this.#visibility);
    globalThis.addEventListener?.("online", this.#online);
    this.#connect();
  }

  /** End it; nothing is called afterwards. */
  close() {
    this.state = "ended";
    this.#drop();
    globalThis.document?.removeEventListener("visibilitychange", this.#visibility);
    globalThis.removeEventListener?.("online", this.#online);
    clearTimeout(this.#hiding);
  }

  #drop() {
    this.#generation += 1;
    clearTimeout(this.#timer);
    clearTimeout(this.#watch);
    this.#socket?.close();
    this.#socket = null;
    this.#abort?.abort();
    this.#abort = null;
  }

  #shown() {
    clearTimeout(this.#hiding);
    if (this.state === "ended") return;
    if (document.visibilityState === "hidden") {
      // Six connections are all that a browser opens to a server: a stream of events takes one.
      this.#hiding = setTimeout(() => { this.#drop(); this.#set("reconnecting"); }, this.transport === "sse" ? HIDDEN_SSE : HIDDEN);
    } else if (!this.#socket && !this.#abort) this.#anew();
  }

  #anew() {
    this.#tries = 0;
    this.#drop();
    this.#connect();
  }

  /** @param {State} state @param {number} [retry] */
  #set(state, retry) {
    this.state = state;
    this.#told = this.transport;
    this.#handlers.onState?.(state, this.transport, retry);
  }

  /** What to subscribe to now: from the last cursor on, if there is one. */
  #wanted() {
    const { last, after: _, ...rest } = this.#subscription;
    const out = { channels: ["logs"], ...rest };
    if (this.cursor) out.after = this.cursor;
    else if (last !== undefined) out.last = last;
    return out;
  }

  #connect() {
    if (this.#rung > 0 && this.#downSince && Date.now() - this.#downSince > UP_AGAIN && typeof WebSocket !== "undefined") this.#rung = 0;
    this.transport = this.#ladder[this.#rung];
    const mine = ++this.#generation;
    this.#begins ||= !this.cursor; // hello has one
    const alive = () => mine === this.#generation && this.state !== "ended";
    /** @param {string} event @param {any} data */
    const take = (event, data) => { if (alive()) this.#take(event, data); };
    /** @param {boolean} [greeted] @param {Problem} [problem] */
    const lost = (greeted = false, problem = undefined) => { if (alive()) this.#lost(greeted, problem); };
    if (this.transport === "ws") this.#webSocket(alive, take, lost);
    else if (this.transport === "sse") this.#serverSent(alive, take, lost);
    else this.#poll(alive, take, lost);
    if (globalThis.document?.visibilityState === "hidden") this.#shown(); // it was opened in the background
  }

  /** @param {() => boolean} alive @param {Function} take @param {Function} lost */
  #webSocket(alive, take, lost) {
    const url = this.#api.url("stream/ws");
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    let greeted = false;
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#watch = setTimeout(() => { if (!greeted) { socket.close(); lost(false); } }, HELLO_WS);
    socket.onopen = () => {
      if (this.#token) socket.send(JSON.stringify({ op: "auth", token: this.#token }));
      socket.send(JSON.stringify({ op: "subscribe", id: "1", ...this.#wanted() }));
    };
    socket.onmessage = (message) => {
      const { event, id, data } = parse(message.data);
      greeted = greeted || event === "hello";
      if (id !== null || event !== "hello") take(event, data ?? {}); // not before it is subscribed
    };
    socket.onclose = (event) => {
      const refused = { 4400: 400, 4401: 401, 4403: 403, 4404: 404 }[event.code];
      lost(greeted, refused ? new Problem(refused, { detail: event.reason }) : undefined);
    };
  }

  /** @param {() => boolean} alive @param {Function} take @param {Function} lost */
  async #serverSent(alive, take, lost) {
    const abort = new AbortController();
    this.#abort = abort;
    let greeted = false, problem;
    // A proxy that buffers may let the hello through, and hold back the ping that follows it alone.
    const early = setTimeout(() => { if (!greeted) { abort.abort(); lost(false); } }, HELLO_SSE);
    try {
      const answer = await this.#api.response("stream", {}, { method: "POST", signal: abort.signal, body: this.#wanted(), accept: "text/event-stream" });
      const reader = /** @type {ReadableStream<any>} */ (answer.body).pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done || !alive()) break;
        const blocks = (rest + value).split(/\r?\n\r?\n/);
        rest = blocks.pop() ?? "";
        for (const block of blocks) {
          let event = "message", data = "";
          for (const line of block.split(/\r?\n/)) {
            if (line.startsWith("event:")) event = line.slice(6).trim();
            else if (line.startsWith("data:")) data += line.slice(5).trimStart();
          }
          if (data) { greeted = greeted || event === "ping"; take(event, parse(data)); }
        }
      }
    } catch (error) {
      if (error instanceof Problem) problem = error; // else it was cut
    }
    clearTimeout(early);
    lost(greeted, problem);
  }

  /** @param {() => boolean} alive @param {Function} take @param {Function} lost */
  async #poll(alive, take, lost) {
    const abort = new AbortController();
    this.#abort = abort;
    try {
      while (alive()) {
        const answer = await this.#api.request("stream/poll", { ...this.#wanted(), wait: 0 }, { signal: abort.signal });
        take("hello", { heartbeat_ms: 15_000 });
        for (const gap of answer.gaps ?? []) take("gap", gap);
        take("lines", { lines: answer.lines ?? [], cursor: answer.cursor });
        if (answer.state) take("state", answer.state);
        await new Promise((resolve) => { this.#timer = setTimeout(resolve, (answer.lines ?? []).length ? 0 : POLL); });
      }
    } catch (error) {
      lost(false, error instanceof Problem ? error : undefined);
    }
  }

  /** @param {string} event @param {any} data */
  #take(event, data) {
    if (event === "hello") {
      this.#heartbeat = data.heartbeat_ms ?? this.#heartbeat;
      this.#tries = 0;
      if (this.#rung > 0 && !this.#downSince) this.#downSince = Date.now();
      if (this.#rung === 0) this.#downSince = 0;
      if (this.state !== "live" || this.transport !== this.#told) this.#set("live");
    }
    if (this.transport !== "polling") {
      clearTimeout(this.#watch);
      this.#watch = setTimeout(() => { this.#drop(); this.#lost(true); }, 2.5 * this.#heartbeat);
    }
    if (event === "lines") {
      const begins = this.#begins;
      if (data.lines.length) this.#begins = false;
      this.#handlers.onLines?.(data.lines, begins);
    } else if (event === "gap") this.#handlers.onGap?.(data);
    else if (event === "state") this.#handlers.onRows?.(data);
    else if (event === "lag") this.#handlers.onLag?.(data);
    else if (event === "reset") { this.cursor = null; this.#handlers.onReset?.(data.reason); }
    else if (event === "error") { this.#lost(true, new Problem(data.status ?? 400, data)); return; } // it is not subscribed
    if (event === "ping") this.behindMs = data.behind_ms ?? 0;
    if (data.cursor) this.cursor = data.cursor;
    if (event === "bye") { this.#drop(); this.#again(data.retry_ms); }
  }

  /** @param {boolean} greeted @param {Problem} [problem] */
  #lost(greeted, problem) {
    this.#drop();
    if (problem?.final && (this.#rung > 0 || problem.status !== 403)) {
      this.#handlers.onError?.(problem);
      this.state = "ended";
      this.#handlers.onState?.("ended", this.transport);
      return;
    }
    if (!greeted && this.#rung < this.#ladder.length - 1) {
      this.#rung += 1;
      if (!this.#downSince) this.#downSince = Date.now();
      this.#connect();
      return;
    }
    if (!greeted) this.#rung = typeof WebSocket === "undefined" ? 1 : 0;
    this.#again();
  }

  /** @param {number} [wait] milliseconds until the next try */
  #again(wait) {
    const base = wait ?? Math.min(30_000, 1000 * 2 ** this.#tries);
    this.#tries += 1;
    const delay = base * (0.8 + 0.4 * Math.random());
    this.#set("reconnecting", delay);
    this.#timer = setTimeout(() => this.#connect(), delay);
  }
}

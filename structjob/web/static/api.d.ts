/** @param {Params} [params] */
export function query(params?: Params): string;
/**
 * JSON as an object. An integer beyond 2^53, which a number cannot hold, comes as its digits.
 * @param {string} text
 */
export function parse(text: string): any;
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
    constructor(status: number, body: any);
    status: number;
    title: any;
    parameter: any;
    body: any;
    /** Whether asking again is of no use, on any transport. */
    get final(): boolean;
}
export function part(one: string | number): string;
/** The API of one server, as far as the pages use it. */
export class Api {
    /**
     * @param {{base?: string | URL, token?: string}} [options] base: where structjob is mounted, such
     *   as "https://host/ops/jobs/" (default: where this module came from). token: sent as a bearer
     *   token; not needed where the browser has signed in.
     */
    constructor({ base, token }?: {
        base?: string | URL;
        token?: string;
    });
    /** @readonly */
    readonly root: URL;
    /** How many milliseconds this machine's clock is ahead of the server's; 0 for a few seconds. */
    clockAhead: number;
    /** @param {string} path below /api/v1/ @param {Params | URLSearchParams} [params] */
    url(path: string, params?: Params | URLSearchParams): URL;
    /**
     * Ask; the answer's JSON comes back.
     * @param {string} path @param {Params | URLSearchParams} [params]
     * @param {{signal?: AbortSignal, method?: string, body?: any}} [options]
     * @returns {Promise<any>}
     * @throws {Problem} if the server refuses or fails
     */
    request(path: string, params?: Params | URLSearchParams, options?: {
        signal?: AbortSignal;
        method?: string;
        body?: any;
    }): Promise<any>;
    /**
     * Ask; the answer comes back as `fetch` has it.
     * @param {string} path @param {Params | URLSearchParams} [params]
     * @param {{signal?: AbortSignal, method?: string, body?: any, accept?: string}} [options]
     * @returns {Promise<Response>}
     * @throws {Problem} if the server refuses or fails
     */
    response(path: string, params?: Params | URLSearchParams, { signal, method, body, accept }?: {
        signal?: AbortSignal;
        method?: string;
        body?: any;
        accept?: string;
    }): Promise<Response>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listJobs">>} */
    listJobs(filter?: Params, signal?: AbortSignal): Promise<Answer<"listJobs">>;
    /** @param {string} id any id of the job @param {Params} [params] events @param {AbortSignal} [signal] @returns {Promise<Answer<"getJob">>} */
    getJob(id: string, params?: Params, signal?: AbortSignal): Promise<Answer<"getJob">>;
    /** @param {string} id @param {Params} [params] depth and limit @param {AbortSignal} [signal] @returns {Promise<Answer<"getTree">>} */
    getTree(id: string, params?: Params, signal?: AbortSignal): Promise<Answer<"getTree">>;
    /** @param {string} id @param {Params} [params] attempt @param {AbortSignal} [signal] @returns {Promise<Answer<"listSteps">>} */
    listSteps(id: string, params?: Params, signal?: AbortSignal): Promise<Answer<"listSteps">>;
    /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Answer<"listAttemptsOfJob">>} */
    listAttemptsOfJob(id: string, signal?: AbortSignal): Promise<Answer<"listAttemptsOfJob">>;
    /** @param {string} id @param {{reason?: string, force?: boolean}} [body] @returns {Promise<Answer<"cancelJob">>} */
    cancelJob(id: string, body?: {
        reason?: string;
        force?: boolean;
    }): Promise<Answer<"cancelJob">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listLogs">>} */
    listLogs(filter?: Params, signal?: AbortSignal): Promise<Answer<"listLogs">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countLogs">>} */
    countLogs(filter?: Params, signal?: AbortSignal): Promise<Answer<"countLogs">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countLogsByTime">>} */
    countLogsByTime(filter?: Params, signal?: AbortSignal): Promise<Answer<"countLogsByTime">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listErrors">>} */
    listErrors(filter?: Params, signal?: AbortSignal): Promise<Answer<"listErrors">>;
    /** @param {string} fingerprint or its beginning @param {AbortSignal} [signal] @returns {Promise<Answer<"getError">>} */
    getError(fingerprint: string, signal?: AbortSignal): Promise<Answer<"getError">>;
    /** @param {string} fingerprint @param {{by?: string}} [body] @returns {Promise<Answer<"resolveError">>} */
    resolveError(fingerprint: string, body?: {
        by?: string;
    }): Promise<Answer<"resolveError">>;
    /** @param {string} fingerprint @param {{by?: string}} [body] @returns {Promise<Answer<"reopenError">>} */
    reopenError(fingerprint: string, body?: {
        by?: string;
    }): Promise<Answer<"reopenError">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listSessions">>} */
    listSessions(filter?: Params, signal?: AbortSignal): Promise<Answer<"listSessions">>;
    /** @param {number | string} number @param {AbortSignal} [signal] @returns {Promise<Answer<"getSession">>} */
    getSession(number: number | string, signal?: AbortSignal): Promise<Answer<"getSession">>;
    /** @param {number | string} number @param {AbortSignal} [signal] @returns {Promise<Answer<"listGaps">>} */
    listGaps(number: number | string, signal?: AbortSignal): Promise<Answer<"listGaps">>;
    /**
     * Follow lines and states: over a WebSocket, else server-sent events, else polling.
     * @param {Params & {channels?: string[]}} subscription channels, filter, `last` or `after`
     * @param {Handlers} handlers
     * @returns {Stream}
     */
    stream(subscription: Params & {
        channels?: string[];
    }, handlers: Handlers): Stream;
    #private;
}
/** A subscription that outlives connections: each line comes once, in order, whatever breaks. */
export class Stream {
    /**
     * @param {Api} api @param {string | undefined} token
     * @param {any} subscription @param {Handlers} handlers
     */
    constructor(api: Api, token: string | undefined, subscription: any, handlers: Handlers);
    /** @type {string | null} The last cursor that was applied. */
    cursor: string | null;
    /** @type {State} */
    state: State;
    /** @type {Transport} */
    transport: Transport;
    /** How far the server's reading is behind, in milliseconds. */
    behindMs: number;
    /** End it; nothing is called afterwards. */
    close(): void;
    #private;
}
export type Params = Record<string, string | number | boolean | null | undefined | (string | number)[]>;
export type Line = {
    session_id: number;
    seq: number;
    ts: string;
    level: string;
    message: string;
    attrs: Record<string, any>;
    [name: string]: any;
};
export type Gap = {
    session_id: number;
    first_seq: number;
    last_seq: number;
    count: number;
    reason: string;
    closed?: boolean;
};
export type Lag = {
    skipped: number;
    errors: number;
    from: string;
    to: string;
};
export type State = "connecting" | "live" | "reconnecting" | "ended";
export type Transport = "ws" | "sse" | "polling";
export type Handlers = {
    /**
     * Lines in their order, each once.
     * *begins*: they are the first since a connection without a cursor; with `last`, there may be
     * more before them than that.
     */
    onLines?: ((lines: Line[], begins: boolean) => void) | undefined;
    /**
     * Lines that were lost, or one gap that a late line closed.
     */
    onGap?: ((gap: Gap) => void) | undefined;
    /**
     * Jobs, attempts and steps that changed, as whole rows.
     */
    onRows?: ((rows: any) => void) | undefined;
    /**
     * Lines that this page was too slow for; they can be loaded.
     */
    onLag?: ((lag: Lag) => void) | undefined;
    /**
     * What was shown must be loaded anew.
     */
    onReset?: ((reason: string) => void) | undefined;
    onState?: ((state: State, transport: Transport, retryInMs?: number) => void) | undefined;
    /**
     * What will not go away by trying again.
     */
    onError?: ((error: Error) => void) | undefined;
};
/**
 * The JSON that a path answers, by the name that the OpenAPI document has for it.
 */
export type Answer<Name extends keyof import("./openapi.js").operations> = import("./openapi.js").operations[Name]["responses"] extends {
    200: {
        content: {
            "application/json": infer Found;
        };
    };
} ? Found : import("./openapi.js").operations[Name]["responses"] extends {
    202: {
        content: {
            "application/json": infer Found;
        };
    };
} ? Found : never;

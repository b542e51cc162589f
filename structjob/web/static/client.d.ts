/** @param {Params} [params] */
export function query(params?: Params): string;
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
 *   *begins*: they are the first after a connection without a cursor; with `last`, there may be
 *   more before them than that.
 * @property {(gap: Gap) => void} [onGap] Lines that were lost, or one gap that a late line closed.
 * @property {(rows: any) => void} [onRows] Jobs, attempts and steps that changed, as whole rows.
 * @property {(lag: Lag) => void} [onLag] Lines that this page was too slow for; they can be loaded.
 * @property {(reason: string) => void} [onReset] What was shown must be loaded anew.
 * @property {(state: State, transport: Transport, retryInMs?: number) => void} [onState]
 * @property {(error: Error) => void} [onError] What will not go away by trying again.
 */
/**
 * JSON as an object. An integer beyond 2^53, which a number cannot hold, comes as its digits.
 * @param {string} text
 */
export function parse(text: string): any;
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
/** The API of one server. */
export class Structjob {
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
    request(path: string, params?: Params | URLSearchParams, { signal, method, body }?: {
        signal?: AbortSignal;
        method?: string;
        body?: any;
    }): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    jobs(filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {string} id any id of the job @param {AbortSignal} [signal] */
    job(id: string, signal?: AbortSignal): Promise<any>;
    /** @param {string} id @param {string} what tree, steps, attempts, progress or estimate
     *  @param {Params} [params] @param {AbortSignal} [signal] */
    ofJob(id: string, what: string, params?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {string} id @param {string} [reason] */
    cancel(id: string, reason?: string): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    logs(filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {string} id "SESSION:SEQ" @param {AbortSignal} [signal] */
    line(id: string, signal?: AbortSignal): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    histogram(filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    count(filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {string} what @param {Params} [filter] @param {AbortSignal} [signal] */
    statistics(what: string, filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    errors(filter?: Params, signal?: AbortSignal): Promise<any>;
    /** @param {string} fingerprint @param {AbortSignal} [signal] */
    error(fingerprint: string, signal?: AbortSignal): Promise<any>;
    /** @param {string} fingerprint @param {"resolve" | "reopen"} change */
    setError(fingerprint: string, change: "resolve" | "reopen"): Promise<any>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] */
    sessions(filter?: Params, signal?: AbortSignal): Promise<any>;
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
     * @param {Structjob} api @param {() => Record<string, string>} headers
     * @param {string | undefined} token @param {any} subscription @param {Handlers} handlers
     */
    constructor(api: Structjob, headers: () => Record<string, string>, token: string | undefined, subscription: any, handlers: Handlers);
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
/** Log messages by job run, task run and type, listed and followed. */
export class LogStreamingService {
    /** @param {{base?: string | URL, token?: string}} [options] as those of `Structjob` */
    constructor(options?: {
        base?: string | URL;
        token?: string;
    });
    /**
     * The lines of a job, oldest first.
     * @param {string} jobRunId @param {number} [limit] @param {number} [offset] at most 100,000
     * @returns {Promise<LogMessage[]>}
     */
    getJobRunLogs(jobRunId: string, limit?: number, offset?: number): Promise<LogMessage[]>;
    /**
     * The lines of a step, oldest first.
     * @param {string} taskRunId @param {number} [limit] at most 10,000 @param {number} [offset]
     * @returns {Promise<LogMessage[]>}
     */
    getTaskRunLogs(taskRunId: string, limit?: number, offset?: number): Promise<LogMessage[]>;
    /** Lines outside any job. @param {number} [limit] @param {number} [offset] @returns {Promise<LogMessage[]>} */
    getSystemLogs(limit?: number, offset?: number): Promise<LogMessage[]>;
    /**
     * @param {"system" | "job" | "task"} type @param {number} [limit] @param {number} [offset]
     * @returns {Promise<LogMessage[]>}
     */
    getLogsByType(type: "system" | "job" | "task", limit?: number, offset?: number): Promise<LogMessage[]>;
    /** Follow one job. @param {string} jobRunId @param {MessageHandlers} handlers @returns {Subscription} */
    streamJobRunLogs(jobRunId: string, handlers: MessageHandlers): Subscription;
    /** Follow everything. @param {MessageHandlers} handlers @returns {Subscription} */
    streamAllLogs(handlers: MessageHandlers): Subscription;
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
export type LogMessage = {
    type: "system" | "job" | "task";
    job_run_id: string;
    task_run_id?: string;
    timestamp: string;
    level: "debug" | "info" | "warn" | "error";
    stream: "stdout" | "stderr" | "system";
    message: string;
    metadata?: Record<string, any>;
};
export type MessageHandlers = {
    /**
     * One line.
     */
    onMessage: (message: LogMessage) => void;
    onGap?: ((gap: Gap) => void) | undefined;
    /**
     * Lines that were skipped because this page was too slow.
     */
    onLag?: ((lag: Lag) => void) | undefined;
    /**
     * It begins anew: lines before may have been skipped.
     */
    onReset?: ((reason: string) => void) | undefined;
    onState?: ((state: State, transport: Transport) => void) | undefined;
    /**
     * What will not go away by trying again.
     */
    onError?: ((error: Error) => void) | undefined;
};
export type Subscription = {
    close(): void;
    readonly cursor: string | null;
    readonly transport: Transport;
    readonly state: State;
};

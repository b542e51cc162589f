/**
 * @typedef {import("./api.js").Params} Params
 * @typedef {import("./api.js").Line} Line
 * @typedef {import("./api.js").Gap} Gap
 * @typedef {import("./api.js").Lag} Lag
 * @typedef {import("./api.js").State} State
 * @typedef {import("./api.js").Transport} Transport
 */
/**
 * @template {keyof import("./openapi.js").operations} Name
 * @typedef {import("./api.js").Answer<Name>} Answer
 */
/** The API of one server: a method for each path. */
export class Structjob extends Api {
    /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Answer<"getProgress">>} */
    getProgress(id: string, signal?: AbortSignal): Promise<Answer<"getProgress">>;
    /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Answer<"getEstimate">>} */
    getEstimate(id: string, signal?: AbortSignal): Promise<Answer<"getEstimate">>;
    /** The archive is the body of the answer. @param {string} id @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Response>} */
    exportJob(id: string, params?: Params, signal?: AbortSignal): Promise<Response>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listAttempts">>} */
    listAttempts(filter?: Params, signal?: AbortSignal): Promise<Answer<"listAttempts">>;
    /** @param {string} name "SESSION:SEQ" @param {AbortSignal} [signal] @returns {Promise<Answer<"getEvent">>} */
    getEvent(name: string, signal?: AbortSignal): Promise<Answer<"getEvent">>;
    /** @param {string} name "SESSION:SEQ" @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Answer<"getContext">>} */
    getContext(name: string, params?: Params, signal?: AbortSignal): Promise<Answer<"getContext">>;
    /** The lines are the body of the answer. @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Response>} */
    downloadLogs(filter?: Params, signal?: AbortSignal): Promise<Response>;
    /** The lines are the body of the answer. @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Response>} */
    downloadText(filter?: Params, signal?: AbortSignal): Promise<Response>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByProject">>} */
    countByProject(filter?: Params, signal?: AbortSignal): Promise<Answer<"countByProject">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByStep">>} */
    countByStep(filter?: Params, signal?: AbortSignal): Promise<Answer<"countByStep">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrors">>} */
    countErrors(filter?: Params, signal?: AbortSignal): Promise<Answer<"countErrors">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorsByTime">>} */
    countErrorsByTime(filter?: Params, signal?: AbortSignal): Promise<Answer<"countErrorsByTime">>;
    /** @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Answer<"getStorage">>} */
    getStorage(params?: Params, signal?: AbortSignal): Promise<Answer<"getStorage">>;
    /** @param {Params} [params] days @param {AbortSignal} [signal] @returns {Promise<Answer<"previewPrune">>} */
    previewPrune(params?: Params, signal?: AbortSignal): Promise<Answer<"previewPrune">>;
    /** @param {{days?: number, levels?: Record<string, number | null>, statuses?: Record<string, number | null>, dry_run?: boolean}} [body] without `dry_run: false` it only counts @returns {Promise<Answer<"prune">>} */
    prune(body?: {
        days?: number;
        levels?: Record<string, number | null>;
        statuses?: Record<string, number | null>;
        dry_run?: boolean;
    }): Promise<Answer<"prune">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByStatus">>} */
    countByStatus(filter?: Params, signal?: AbortSignal): Promise<Answer<"countByStatus">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByTime">>} */
    countByTime(filter?: Params, signal?: AbortSignal): Promise<Answer<"countByTime">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"readTrends">>} */
    readTrends(filter?: Params, signal?: AbortSignal): Promise<Answer<"readTrends">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorsByJob">>} */
    countErrorsByJob(filter?: Params, signal?: AbortSignal): Promise<Answer<"countErrorsByJob">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countEventsByJob">>} */
    countEventsByJob(filter?: Params, signal?: AbortSignal): Promise<Answer<"countEventsByJob">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorGroups">>} */
    countErrorGroups(filter?: Params, signal?: AbortSignal): Promise<Answer<"countErrorGroups">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countVolume">>} */
    countVolume(filter?: Params, signal?: AbortSignal): Promise<Answer<"countVolume">>;
    /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByOperation">>} */
    countByOperation(filter?: Params, signal?: AbortSignal): Promise<Answer<"countByOperation">>;
    /** @param {AbortSignal} [signal] @returns {Promise<Answer<"verify">>} */
    verify(signal?: AbortSignal): Promise<Answer<"verify">>;
    /** @param {AbortSignal} [signal] @returns {Promise<Answer<"getHealth">>} */
    getHealth(signal?: AbortSignal): Promise<Answer<"getHealth">>;
    /** @param {AbortSignal} [signal] @returns {Promise<Answer<"getReady">>} */
    getReady(signal?: AbortSignal): Promise<Answer<"getReady">>;
    /** @param {AbortSignal} [signal] @returns {Promise<Answer<"whoAmI">>} */
    whoAmI(signal?: AbortSignal): Promise<Answer<"whoAmI">>;
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
    /** What streams are open. @returns {Promise<Answer<"getStreamStatus">>} */
    getStreamStatus(): Promise<Answer<"getStreamStatus">>;
    /** Follow one job. @param {string} jobRunId @param {MessageHandlers} handlers @returns {Subscription} */
    streamJobRunLogs(jobRunId: string, handlers: MessageHandlers): Subscription;
    /** Follow everything. @param {MessageHandlers} handlers @returns {Subscription} */
    streamAllLogs(handlers: MessageHandlers): Subscription;
    #private;
}
export type Params = import("./api.js").Params;
export type Line = import("./api.js").Line;
export type Gap = import("./api.js").Gap;
export type Lag = import("./api.js").Lag;
export type State = import("./api.js").State;
export type Transport = import("./api.js").Transport;
export type Answer<Name extends keyof import("./openapi.js").operations> = import("./api.js").Answer<Name>;
export type LogMessage = {
    type: "system" | "job" | "task";
    job_run_id: string;
    task_run_id?: string | undefined;
    timestamp: string;
    level: "debug" | "info" | "warn" | "error";
    stream: "stdout" | "stderr" | "system";
    message: string;
    metadata?: Record<string, any> | undefined;
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
import { Api } from "./api.js";
export { Problem, Stream, parse, query } from "./api.js";

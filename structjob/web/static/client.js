// @ts-check
// The client of structjob's HTTP API and live streams. It needs nothing but a browser (or a Node with
// fetch): import { Structjob, LogStreamingService } from ".../client.js".

import { Structjob } from "./api.js";
export { Problem, Stream, Structjob, parse, query } from "./api.js";

/**
 * @typedef {import("./api.js").Params} Params
 * @typedef {import("./api.js").Line} Line
 * @typedef {import("./api.js").Gap} Gap
 * @typedef {import("./api.js").Lag} Lag
 * @typedef {import("./api.js").State} State
 * @typedef {import("./api.js").Transport} Transport
 */

/**
 * @typedef {object} LogMessage
 * @property {"system" | "job" | "task"} type
 * @property {string} job_run_id
 * @property {string} [task_run_id]
 * @property {string} timestamp
 * @property {"debug" | "info" | "warn" | "error"} level
 * @property {"stdout" | "stderr" | "system"} stream
 * @property {string} message
 * @property {Record<string, any>} [metadata]
 *
 * @typedef {object} MessageHandlers
 * @property {(message: LogMessage) => void} onMessage One line.
 * @property {(gap: Gap) => void} [onGap]
 * @property {(lag: Lag) => void} [onLag] Lines that were skipped because this page was too slow.
 * @property {(reason: string) => void} [onReset] It begins anew: lines before may have been skipped.
 * @property {(state: State, transport: Transport) => void} [onState]
 * @property {(error: Error) => void} [onError] What will not go away by trying again.
 *
 * @typedef {{close(): void, readonly cursor: string | null, readonly transport: Transport,
 *   readonly state: State}} Subscription
 */

const FOUR = /** @type {Record<string, LogMessage["level"]>} */ ({ debug: "debug", info: "info", success: "info", warning: "warn", error: "error", critical: "error" });

/** @param {Line} line @returns {LogMessage} */
function messageOf(line) {
  const level = FOUR[line.level] ?? "info";
  const metadata = { ...line.attrs, ...(level === line.level || line.level === "warning" ? {} : { "structjob.level": line.level }) };
  return {
    type: line.type,
    job_run_id: line.job_id ?? "",
    ...(line.step_id ? { task_run_id: line.step_id } : {}),
    timestamp: line.ts,
    level,
    stream: line.stream,
    message: line.message,
    ...(Object.keys(metadata).length ? { metadata } : {}),
  };
}

/** Log messages by job run, task run and type, listed and followed. */
export class LogStreamingService {
  #api;

  /** @param {{base?: string | URL, token?: string}} [options] as those of `Structjob` */
  constructor(options) {
    this.#api = new Structjob(options);
  }

  /**
   * The lines of a job, oldest first.
   * @param {string} jobRunId @param {number} [limit] @param {number} [offset] at most 100,000
   * @returns {Promise<LogMessage[]>}
   */
  getJobRunLogs(jobRunId, limit = 100, offset = 0) {
    return this.#api.request(`logs/job-runs/${encodeURIComponent(jobRunId)}`, { limit, offset });
  }

  /**
   * The lines of a step, oldest first.
   * @param {string} taskRunId @param {number} [limit] at most 10,000 @param {number} [offset]
   * @returns {Promise<LogMessage[]>}
   */
  getTaskRunLogs(taskRunId, limit = 10_000, offset = 0) {
    return this.#api.request(`logs/task-runs/${encodeURIComponent(taskRunId)}`, { limit, offset });
  }

  /** Lines outside any job. @param {number} [limit] @param {number} [offset] @returns {Promise<LogMessage[]>} */
  getSystemLogs(limit = 100, offset = 0) {
    return this.#api.request("logs/system", { limit, offset });
  }

  /**
   * @param {"system" | "job" | "task"} type @param {number} [limit] @param {number} [offset]
   * @returns {Promise<LogMessage[]>}
   */
  getLogsByType(type, limit = 100, offset = 0) {
    return this.#api.request(`logs/type/${encodeURIComponent(type)}`, { limit, offset });
  }

  /** Follow one job. @param {string} jobRunId @param {MessageHandlers} handlers @returns {Subscription} */
  streamJobRunLogs(jobRunId, handlers) {
    return this.#follow({ job: jobRunId }, handlers);
  }

  /** Follow everything. @param {MessageHandlers} handlers @returns {Subscription} */
  streamAllLogs(handlers) {
    return this.#follow({}, handlers);
  }

  /** @param {Params} filter @param {MessageHandlers} handlers */
  #follow(filter, { onMessage, ...others }) {
    return this.#api.stream(filter, { ...others, onLines: (lines) => lines.forEach((line) => onMessage(messageOf(line))) });
  }
}

// @ts-check
// The client of structjob's HTTP API and live streams. It needs nothing but a browser (or a Node with
// fetch): import { Structjob, LogStreamingService } from ".../client.js".

import { Api, part } from "./api.js";
export { Problem, Stream, parse, query } from "./api.js";

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
  getProgress(id, signal) { return this.request(`jobs/${part(id)}/progress`, {}, { signal }); }
  /** @param {string} id @param {AbortSignal} [signal] @returns {Promise<Answer<"getEstimate">>} */
  getEstimate(id, signal) { return this.request(`jobs/${part(id)}/estimate`, {}, { signal }); }
  /** The archive is the body of the answer. @param {string} id @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Response>} */
  exportJob(id, params, signal) { return this.response(`jobs/${part(id)}/export`, params, { signal, accept: "*/*" }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"listAttempts">>} */
  listAttempts(filter, signal) { return this.request("attempts", filter, { signal }); }
  /** @param {string} name "SESSION:SEQ" @param {AbortSignal} [signal] @returns {Promise<Answer<"getEvent">>} */
  getEvent(name, signal) { return this.request(`logs/${part(name)}`, {}, { signal }); }
  /** @param {string} name "SESSION:SEQ" @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Answer<"getContext">>} */
  getContext(name, params, signal) { return this.request(`logs/${part(name)}/context`, params, { signal }); }
  /** The lines are the body of the answer. @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Response>} */
  downloadLogs(filter, signal) { return this.response("logs.jsonl", filter, { signal, accept: "*/*" }); }
  /** The lines are the body of the answer. @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Response>} */
  downloadText(filter, signal) { return this.response("logs.txt", filter, { signal, accept: "*/*" }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByProject">>} */
  countByProject(filter, signal) { return this.request("statistics/projects", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByStep">>} */
  countByStep(filter, signal) { return this.request("statistics/steps", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrors">>} */
  countErrors(filter, signal) { return this.request("statistics/errors", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorsByTime">>} */
  countErrorsByTime(filter, signal) { return this.request("statistics/errors-by-time", filter, { signal }); }
  /** @param {Params} [params] @param {AbortSignal} [signal] @returns {Promise<Answer<"getStorage">>} */
  getStorage(params, signal) { return this.request("storage", params, { signal }); }
  /** @param {Params} [params] days @param {AbortSignal} [signal] @returns {Promise<Answer<"previewPrune">>} */
  previewPrune(params, signal) { return this.request("retention", params, { signal }); }
  /** @param {{days?: number, levels?: Record<string, number | null>, statuses?: Record<string, number | null>, dry_run?: boolean}} [body] without `dry_run: false` it only counts @returns {Promise<Answer<"prune">>} */
  prune(body = {}) { return this.request("retention/prune", {}, { method: "POST", body }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByStatus">>} */
  countByStatus(filter, signal) { return this.request("statistics/jobs", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByTime">>} */
  countByTime(filter, signal) { return this.request("statistics/throughput", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"readTrends">>} */
  readTrends(filter, signal) { return this.request("statistics/trends", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorsByJob">>} */
  countErrorsByJob(filter, signal) { return this.request("statistics/errors-by-job", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countEventsByJob">>} */
  countEventsByJob(filter, signal) { return this.request("statistics/events-by-job", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countErrorGroups">>} */
  countErrorGroups(filter, signal) { return this.request("errors/count", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countVolume">>} */
  countVolume(filter, signal) { return this.request("statistics/volume", filter, { signal }); }
  /** @param {Params} [filter] @param {AbortSignal} [signal] @returns {Promise<Answer<"countByOperation">>} */
  countByOperation(filter, signal) { return this.request("statistics/operations", filter, { signal }); }
  /** @param {AbortSignal} [signal] @returns {Promise<Answer<"verify">>} */
  verify(signal) { return this.request("verify", {}, { signal }); }
  /** @param {AbortSignal} [signal] @returns {Promise<Answer<"getHealth">>} */
  getHealth(signal) { return this.request("health", {}, { signal }); }
  /** @param {AbortSignal} [signal] @returns {Promise<Answer<"getReady">>} */
  getReady(signal) { return this.request("ready", {}, { signal }); }
  /** @param {AbortSignal} [signal] @returns {Promise<Answer<"whoAmI">>} */
  whoAmI(signal) { return this.request("whoami", {}, { signal }); }
}

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

  /** What streams are open. @returns {Promise<Answer<"getStreamStatus">>} */
  getStreamStatus() {
    return this.#api.request("logs/stream/status");
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

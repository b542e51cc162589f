// A job's tree, kept up to date by the rows that a stream sends.

/** Whether a row is not an older one than what is known: a session numbers its changes. */
const current = (row, known) => !known || row.session_id !== known.session_id || row.attempt < known.attempt || row.state_seq >= known.state_seq;

function grouped(rows, key) {
  const out = new Map();
  for (const row of rows) { if (!out.has(row[key])) out.set(row[key], []); out.get(row[key]).push(row); }
  return out;
}

/**
 * The tree with rows that changed; the parts that have not are the same objects. Null where a new
 * row has no place, because the tree was cut at *depth*, or to a number of rows: then it must be
 * asked for again.
 */
export function withRows(tree, { jobs = [], steps = [] }, depth) {
  const jobOf = new Map(jobs.map((one) => [one.id, one])), stepsOf = grouped(steps, "job_id");
  const known = new Set();
  const note = (node) => { known.add(node.job.id); node.children.forEach(note); };
  note(tree);
  const added = grouped(jobs.filter((one) => !known.has(one.id)), "parent_job_id");
  let whole = true;
  const visit = (node, level) => {
    known.add(node.job.id);
    const row = jobOf.get(node.job.id);
    const job = row && current(row, node.job) ? row : node.job;
    const mine = stepsOf.get(job.id) ?? [], kids = added.get(job.id) ?? [];
    let own = node.steps;
    if (mine.length || job.attempt !== node.job.attempt) {
      const byId = new Map(own.map((one) => [one.id, one]));
      for (const one of mine) {
        if (node.folded && !byId.has(one.id) && one.attempt === job.attempt) whole = false;
        if (current(one, byId.get(one.id))) byId.set(one.id, one);
      }
      own = inOrder([...byId.values()].filter((one) => one.attempt === job.attempt));
    }
    if (kids.length && (node.folded || level === depth)) { whole = false; return node; }
    const children = [...node.children, ...kids.map((one) => ({ job: one, steps: [], children: [], folded: 0 }))].map((one) => visit(one, level + 1));
    const same = job === node.job && own === node.steps && !kids.length && children.every((one, i) => one === node.children[i]);
    return same ? node : { ...node, job, steps: own, children };
  };
  const out = visit(tree, 0);
  return whole && jobs.every((one) => known.has(one.id)) && steps.every((one) => known.has(one.job_id)) ? out : null;
}

/** Steps in the order in which they started, by their numbers. If several processes or tasks of a pool count their own steps, the times decide. */
function inOrder(steps) {
  const time = (one) => (one.started_at ? Date.parse(one.started_at) : Infinity);
  const counted = new Set(steps.map((one) => one.session_id)).size < 2 && new Set(steps.map((one) => one.seq)).size === steps.length;
  return steps.sort((a, b) => (counted ? 0 : time(a) - time(b)) || a.seq - b.seq);
}

/** The attempts of a job with rows that changed. */
export function withAttempts(attempts, rows, id) {
  const out = new Map(attempts.map((one) => [one.attempt, one]));
  for (const one of rows) if (one.job_id === id) out.set(one.attempt, one);
  return [...out.values()].sort((a, b) => a.attempt - b.attempt);
}

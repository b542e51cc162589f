// Text that is selected in a viewer, and what of it is copied.

/**
 * Where the text that is selected within *root*, a shadow root, begins and ends; null without one. A
 * browser that knows no other way has the nodes within the root in the selection of the document.
 */
export function selected(root) {
  const selection = document.getSelection();
  const range = selection?.getComposedRanges?.({ shadowRoots: [root] })[0] ?? rangeOf(root.getSelection?.() ?? selection);
  if (!range || range.collapsed || !root.contains(range.startContainer) || !root.contains(range.endContainer)) return null;
  const found = document.createRange();
  found.setStart(range.startContainer, range.startOffset);
  found.setEnd(range.endContainer, range.endOffset);
  return found;
}

const rangeOf = (selection) => (selection?.rangeCount ? selection.getRangeAt(0) : null);
const rowOf = (node) => (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement)?.closest(".row");

/** The text of a node that a range covers. */
function covered(range, node) {
  const part = document.createRange();
  part.selectNodeContents(node);
  if (range.compareBoundaryPoints(Range.START_TO_START, part) > 0) part.setStart(range.startContainer, range.startOffset);
  if (range.compareBoundaryPoints(Range.END_TO_END, part) < 0) part.setEnd(range.endContainer, range.endOffset);
  return range.intersectsNode(node) ? part.toString() : "";
}

/** The rows that a selection begins and ends in: those of them that it has text of. */
export function endsOf(range) {
  let first = rowOf(range.startContainer), last = rowOf(range.endContainer);
  if (!first || !last || first === last) return { first, last };
  if (!covered(range, first)) first = first.nextElementSibling;
  if (!covered(range, last)) last = last.previousElementSibling;
  return { first, last };
}

/**
 * What is copied of a part of one row: its columns on one line. Null where the browser does it well:
 * within a column, and within what is open below the line.
 */
export function partOf(range, row) {
  const columns = [...row.querySelectorAll(".line > *")].map((one) => covered(range, one)).filter(Boolean);
  const rest = [...row.children].slice(1).some((one) => covered(range, one));
  return columns.length < 2 || rest ? null : columns.join(" ");
}

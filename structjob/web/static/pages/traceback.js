// A traceback: own frames in full, runs of library frames folded to a line.

import { html, useEffect, useMemo, useRef, useState } from "../ui.js";
import { plural } from "../format.js";
import { folded, frames, shown } from "../logs-text.js";

export function Traceback({ text, mode }) {
  const [open, setOpen] = useState(new Set());
  const parts = useMemo(() => frames(text), [text]);
  if (mode === "raw" || !parts.some((one) => one.file)) return html`<${Raw} text=${text} />`;
  return html`${(mode === "all" ? parts : folded(parts)).map((one, i) => {
    if (one.folded && !open.has(i)) return html`<button type="button" class="lib" onClick=${() => setOpen(new Set([...open, i]))}>▸ ${plural(one.folded.length, "frame")} in ${one.names}</button>`;
    if (one.folded) return one.folded.map((frame) => html`<${Frame} frame=${frame} />`);
    if (one.file) return html`<${Frame} frame=${one} />`;
    if (one.from) return html`<div class="from">${one.from}</div>`;
    return html`<div class="last"><${Raw} text=${one.last} /></div>`;
  })}`;
}

const Frame = ({ frame }) => html`<div class=${frame.own ? "own" : "dim"} title=${frame.path}>${frame.file}:${frame.line} in ${frame.name}</div>${frame.code.map((code) => html`<div class="code"><${Raw} text=${code} /></div>`)}`;

function Raw({ text }) {
  const box = useRef(null);
  useEffect(() => { box.current.replaceChildren(shown(text, "", true)); }, [text]);
  return html`<span ref=${box}></span>`;
}

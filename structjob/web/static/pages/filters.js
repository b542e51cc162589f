// "+ filter": a name, an operator, a value.

import { html, useLayoutEffect, useRef, useState } from "../ui.js";

/** A small form beside the chips; *open* may be the name of a field to change. */
export function AddFilter({ open, setOpen, fields, extra, onAdd, values = {} }) {
  const [name, setName] = useState(fields[0]);
  const [value, setValue] = useState("");
  const box = useRef(null);
  useLayoutEffect(() => {
    if (!open) return;
    if (typeof open === "string") setName(open);
    setValue("");
    box.current?.focus();
  }, [open]);
  if (!open) return html`<button type="button" class="btn quiet" onClick=${() => setOpen(true)}>+ filter <kbd>f</kbd></button>`;
  const submit = (event) => {
    event.preventDefault();
    if (name && value) onAdd(name, value);
    setOpen(false);
  };
  const key = (event) => { if (event.key === "Escape") { event.stopPropagation(); setOpen(false); } };
  return html`<form class="field" onSubmit=${submit} onKeyDown=${key}>
    <input list="filter-names" aria-label="field" size="14" ref=${box} value=${name} onInput=${(event) => setName(event.target.value)} onFocus=${(event) => event.target.select()} />
    <datalist id="filter-names">${[...fields, ...(extra ? [extra] : [])].map((one) => html`<option value=${one} />`)}</datalist>
    <span class="dim">=</span>
    <input aria-label="value" size="16" list="filter-values" placeholder=${name === "level" ? "warning and above" : name?.endsWith(".") ? "value" : ""} value=${value} onInput=${(event) => setValue(event.target.value)} />
    <datalist id="filter-values">${(values[name] ?? []).map((one) => html`<option value=${one} />`)}</datalist>
    <button type="submit" class="btn">Add</button></form>`;
}

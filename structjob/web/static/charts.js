// Charts as SVG: histogram of lines, throughput of jobs, bars a day, a line with its median.

import { html, useEffect, useRef, useState } from "./ui.js";
import { behind, count, day, duration, present, sameDay, step as axisStep, tickText } from "./format.js";

const sum = (counts) => Object.values(counts).reduce((a, b) => a + b, 0);

/** Labels of a time axis: [{x: share, text}]. */
export function timeLabels(start, end, most = 8) {
  const length = axisStep(end - start, most);
  const shift = behind(start);
  const out = [];
  for (let t = Math.ceil((start - shift) / length) * length + shift; t < end; t += length) {
    const midnight = !out.length ? false : !sameDay(t, out.at(-1).time);
    out.push({ time: t, x: (t - start) / (end - start), text: length >= 86_400_000 ? day(t) : midnight ? `${day(t)} ${tickText(t, length)}` : tickText(t, length) });
  }
  return out;
}

/** Lines by time: others, warnings over them, errors below; a drag chooses a stretch. */
export function Histogram({ data, hidden, range, onRange, label }) {
  const box = useRef(null);
  const [drag, setDrag] = useState(null);
  const buckets = data?.bars?.length ? data.bars : hidden?.bars ?? [];
  if (!buckets.length) return html`<svg class="chart" viewBox="0 0 1248 72" height="72" preserveAspectRatio="none" aria-hidden="true"><line class="rugline" x1="0" x2="1248" y1="70.5" y2="70.5" /></svg><div class="axis-row"></div>`; // nothing below moves when it is there
  const start = Date.parse(buckets[0].since), end = Date.parse(buckets.at(-1).until);
  const most = Math.max(1, ...buckets.map((one) => sum(one.counts)), ...(hidden?.bars ?? []).map((one) => sum(one.counts)));
  const w = 1248 / buckets.length, width = innerWidth - 32;
  const share = (event) => { const r = box.current.getBoundingClientRect(); return Math.max(0, Math.min(1, (event.clientX - r.left) / r.width)); };
  const chosen = drag ? [Math.min(...drag), Math.max(...drag)] : range ? [(range[0] - start) / (end - start), (range[1] - start) / (end - start)] : null;
  const up = () => {
    if (!drag) return;
    const [a, b] = [Math.min(...drag), Math.max(...drag)];
    setDrag(null);
    if (b - a > 0.004) onRange([start + a * (end - start), start + b * (end - start)]);
    else { const i = Math.min(buckets.length - 1, Math.floor(a * buckets.length)); onRange([Date.parse(buckets[i].since), Date.parse(buckets[i].until)]); }
  };
  return html`<svg ref=${box} class="chart" viewBox="0 0 1248 72" height="72" preserveAspectRatio="none" role="img" aria-label=${label}
      onPointerDown=${(event) => { event.currentTarget.setPointerCapture(event.pointerId); setDrag([share(event), share(event)]); }} onPointerMove=${(event) => drag && setDrag([drag[0], share(event)])} onPointerUp=${up}>
    ${chosen && html`<rect class="brush" x=${chosen[0] * 1248} width=${Math.max(1, (chosen[1] - chosen[0]) * 1248)} y="0" height="70" />`}
    ${(hidden?.bars ?? []).map((one, i) => { const h = (68 * sum(one.counts)) / most; return h > 0 && html`<rect class="h-hidden" x=${i * w + 0.5} width=${Math.max(1, w - 1)} y=${70 - h} height=${h} />`; })}
    ${(data?.bars ?? []).map((one, i) => {
      const bad = (one.counts.error ?? 0) + (one.counts.critical ?? 0), warn = one.counts.warning ?? 0, all = sum(one.counts);
      if (!all) return null;
      const scale = (n) => (n ? Math.max(1.5, (68 * n) / most) : 0);
      const e = scale(bad), a = scale(warn), o = scale(all - bad - warn);
      const out = chosen && ((i + 1) / buckets.length <= chosen[0] || i / buckets.length >= chosen[1]);
      return html`<g class=${out ? "outside" : ""}>${e > 0 && html`<rect class="h-err" x=${i * w + 0.5} width=${Math.max(1, w - 1)} y=${70 - e} height=${e} />`}
        ${a > 0 && html`<rect class="h-warn" x=${i * w + 0.5} width=${Math.max(1, w - 1)} y=${70 - e - a - (e ? 1 : 0)} height=${a} />`}
        ${o > 0 && html`<rect class="h-quiet" x=${i * w + 0.5} width=${Math.max(1, w - 1)} y=${70 - e - a - o - (e || a ? 1 : 0)} height=${o} />`}</g>`;
    })}
    <line class="rugline" x1="0" x2="1248" y1="70.5" y2="70.5" />
    ${chosen && html`<path class="brush-edge" d=${`M${chosen[0] * 1248} 0v70M${chosen[1] * 1248} 0v70`} />`}</svg>
    <div class="axis-row" aria-hidden="true">${timeLabels(start, end, width > 700 ? 8 : 3).filter((one) => one.x * width > 24 && (1 - one.x) * width > 24).map((one) => html`<span style=${{ left: `${100 * one.x}%` }}>${one.text}</span>`)}</div>`;
}

/** Completed jobs above the line; below it each failed, crashed and cancelled one is a mark. */
export function Throughput({ data, onHover, hover, onChoose }) {
  const box = useRef(null);
  const [width, setWidth] = useState(1248);
  useEffect(() => {
    const watch = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.round(entry.contentRect.width))));
    watch.observe(box.current);
    return () => watch.disconnect();
  }, []);
  const base = 132, left = 40;
  const most = Math.max(4, ...data.map((one) => one.completed));
  const unit = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 50_000].find((one) => most / one <= 2.6) ?? most;
  const y = (n) => base - (124 * n) / Math.max(most, unit * 2);
  const w = (width - left) / data.length;
  const now = present();
  const marks = Math.max(0, ...data.map((one) => one.failed + one.crashed + one.cancelled));
  return html`<svg ref=${box} class="chart" height="168" viewBox=${`0 0 ${width} 168`} role="img" aria-label="jobs by time; the table below has the same by operation" onPointerLeave=${() => onHover(null)}>
    ${[unit, 2 * unit].filter((one) => y(one) >= 0).map((one) => html`<line class="grid" x1=${left} x2=${width} y1=${Math.round(y(one)) + 0.5} y2=${Math.round(y(one)) + 0.5} /><text x=${left - 8} y=${y(one) + 4} text-anchor="end">${count(one)}</text>`)}
    ${data.map((one, i) => {
      const x = left + i * w, h = base - y(one.completed);
      const open = Date.parse(one.end) > now;
      const list = ["failed", "crashed", "cancelled"].flatMap((kind) => Array(Math.min(6, one[kind])).fill(kind)).slice(0, 6);
      const apart = Math.min(9.5, (w - 2) / list.length), half = Math.max(1, (apart - 2.5) / 2); // within their own interval
      const mark = (kind, at) => { const mx = x + 1 + half + at * apart; return kind === "failed" ? html`<rect class="b-bad" x=${mx - half} y=${base + 6} width=${2 * half} height="7" />` : kind === "crashed" ? html`<path class="b-bad" d=${`M${mx} ${base + 5}l${half + 1} 4.5-${half + 1} 4.5-${half + 1}-4.5z`} />` : html`<ellipse class="s-off ring" cx=${mx} cy=${base + 9.5} rx=${half} ry="3" />`; };
      return html`<g onPointerEnter=${() => onHover(one)} onClick=${() => onChoose(one)}>
        <rect class=${hover === one ? "cols hovered" : "cols"} x=${x} width=${w} y="0" height="152" />
        ${h > 0 && html`<rect class=${open ? "open-hour" : "area"} x=${x + 1} width=${Math.max(1, w - 3)} y=${y(one.completed)} height=${h} />`}
        ${h > 0 && !open && html`<rect class="b-done" x=${x + 1} width=${Math.max(1, w - 3)} y=${y(one.completed) - 1} height="2" />`}${list.map(mark)}</g>`;
    })}
    <line class="rugline" x1=${left} x2=${width} y1=${base + 0.5} y2=${base + 0.5} />
    ${data.length > 1 && timeLabels(Date.parse(data[0].start), Date.parse(data.at(-1).end), width > 700 ? 8 : 3).filter((one) => (1 - one.x) * (width - left) > 32).map((one) => html`<text x=${left + one.x * (width - left)} y=${marks ? 159 : 150}>${one.text}</text>`)}</svg>`;
}

/** A bar a day; only the last one may be red. */
export function DayBars({ counts, days = 28, bad = true, width = 150, height = 22 }) {
  const most = Math.max(1, ...counts);
  const w = width / days;
  return html`<svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} preserveAspectRatio="none" role="img" aria-label=${`${counts.reduce((a, b) => a + b, 0)} in ${days} days`}><line class="base" x1="0" x2=${width} y1=${height - 0.5} y2=${height - 0.5} />
    ${counts.map((n, i) => n > 0 && html`<rect class=${`spark-bar ${bad && i === counts.length - 1 ? "last" : ""}`} x=${i * w + 0.5} width=${w - 1} y=${height - 1 - Math.max(2, ((height - 2) * n) / most)} height=${Math.max(2, ((height - 2) * n) / most)} />`)}</svg>`;
}

/** A line with a dashed median and a dot at its end; null where nothing was measured. */
export function Line({ values, median, warn, width = 250, height = 20, label }) {
  const known = values.filter((one) => one != null);
  if (known.length < 2) return null;
  const most = Math.max(...known, median ?? 0) || 1;
  const x = (i) => ((width - 6) * i) / (values.length - 1);
  const y = (value) => height - 2 - ((height - 5) * value) / most;
  const points = values.map((value, i) => (value == null ? null : `${x(i).toFixed(1)} ${y(value).toFixed(1)}`)).filter(Boolean);
  const last = values.findLastIndex((one) => one != null);
  return html`<svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`} class=${warn ? "warn" : "dim"} role="img" aria-label=${label ?? `latest ${duration(values[last])}`}>
    ${median != null && html`<line class="base" x1="0" x2=${width} y1=${y(median)} y2=${y(median)} />`}<path class="thin" stroke="currentColor" d=${`M${points.join("L")}`} /><circle fill="currentColor" cx=${x(last)} cy=${y(values[last])} r="2" /></svg>`;
}

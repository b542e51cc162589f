// The style of <structjob-logs>. Each color can be set from outside as --structjob-NAME.

const COLORS = {
  well: ["#fff", "#0b0c0e"], hover: ["#efefea", "#1c2024"], line: ["#e5e4df", "#22262a"],
  line2: ["#cdccc4", "#3a4047"], ink: ["#1a1a17", "#e6e8e9"], ink2: ["#504f49", "#abb1b6"],
  ink3: ["#6a6962", "#878e95"], accent: ["#1a5bbf", "#84b4ff"], accentbg: ["#e6eefa", "#142131"],
  focus: ["#1a5bbf", "#84b4ff"], err: ["#be2a1d", "#ff8b7f"], errfill: ["#d0392b", "#e2564a"],
  errbg: ["#fbedea", "#271413"], onerr: ["#fff", "#140403"], warn: ["#875500", "#e0b15a"],
  warnfill: ["#b47b14", "#be8f38"], warnbg: ["#faf1dc", "#272010"], ok: ["#22754a", "#74c195"],
  donesoft: ["#c9d6ce", "#24382f"], mark: ["#ffe9a8", "#5a4708"], pill: ["#1f1f1b", "#e6e8e9"],
  onpill: ["#fbfbf9", "#141618"], pillerr: ["#ff9d92", "#a81f13"],
};
const tokens = Object.entries(COLORS)
  .map(([name, [light, dark]]) => `--${name}: var(--structjob-${name}, light-dark(${light}, ${dark}));`)
  .join("");

export const CSS = `
:host { ${tokens} display: block; position: relative; height: 400px; overflow: hidden; container-type: inline-size;
  background: var(--well); color: var(--ink); text-align: left;
  font: 12px/20px var(--structjob-mono, ui-monospace, "SF Mono", "Cascadia Code", "JetBrains Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace);
  font-variant-ligatures: none; font-variant-numeric: tabular-nums; }
:host([theme="dark"]) { color-scheme: dark; } :host([theme="light"]) { color-scheme: light; } :host([theme="system"]) { color-scheme: light dark; }
:host([hidden]), [hidden] { display: none !important; }
* { box-sizing: border-box; }
.gap, .day, .fold em, .empty, .pill, .said, .acts, .lib, .head span { font-family: var(--structjob-sans, -apple-system, BlinkMacSystemFont, "Segoe UI Variable Text", "Segoe UI", Inter, Cantarell, Ubuntu, Roboto, "Noto Sans", sans-serif); }
.head { position: absolute; inset: 0 30px auto 0; height: 26px; line-height: 26px; border-bottom: 1px solid var(--line); color: var(--ink3); display: grid; grid-template-columns: var(--columns); padding-left: 16px; white-space: nowrap; z-index: 2; }
.head:not([hidden]) + .view { top: 26px; }
.view { position: absolute; inset: 0 30px 0 0; overflow-y: scroll; overflow-x: hidden; overflow-anchor: none; scrollbar-width: none; }
.view::-webkit-scrollbar { display: none; }
.tall { position: relative; width: 100%; contain: strict; }
.row { position: absolute; left: 0; right: 0; top: 0; contain: layout style; }
.line { display: grid; grid-template-columns: var(--columns); padding-left: 14px; border-left: 2px solid transparent; min-height: 20px; }
.line > * { overflow: hidden; white-space: pre; min-width: 0; }
.time { color: var(--ink3); } .col { color: var(--ink3); text-overflow: ellipsis; padding-right: 10px; }
.level { text-align: center; color: var(--ink3); width: 16px; justify-self: center; }
.text { text-overflow: ellipsis; padding-right: 16px; }
.attr { color: var(--ink2); } .msg, .attr { unicode-bidi: isolate; } .attr i { font-style: normal; color: var(--ink3); }
.debug .text { color: var(--ink3); } .success .level { color: var(--ok); }
.warning .level { color: var(--warn); font-weight: 700; }
.error { background: var(--errbg); border-left-color: var(--errfill); }
.error .level, .hold .error .level { background: var(--errfill); color: var(--onerr); border-radius: 2px; line-height: 16px; height: 16px; margin-top: 2px; }
.error .msg { color: var(--err); }
.critical, .critical .line { background: var(--errfill); color: var(--onerr); border-left-color: var(--errfill); }
.critical.line *, .critical .attr { color: inherit; } .critical .level { font-weight: 700; }
.line:hover { background: var(--hover); } .error.line:hover { background: var(--errbg); } .critical.line:hover { background: var(--errfill); }
.cursor > .line { background: var(--accentbg); border-left-color: var(--accent); } .cursor > .critical.line { background: var(--errfill); }
.picked > .line { background: var(--accentbg); }
.wrapped .text, .whole .text { white-space: pre-wrap; overflow-wrap: anywhere; }
.acts { position: absolute; user-select: none; right: 12px; top: 0; display: none; gap: 8px; background: inherit; padding-left: 8px; color: var(--ink3); }
.row:hover .acts { display: flex; background: var(--hover); } .cursor .acts { background: var(--accentbg); }
.row:has(.error):hover .acts { background: var(--errbg); } .row:has(.critical):hover .acts { display: none; }
button { border: 0; background: none; color: inherit; font: inherit; cursor: pointer; padding: 0; }
kbd { font: 11px/16px inherit; border: 1px solid var(--line2); border-radius: 3px; padding: 0 4px; margin-right: 4px; font-family: var(--structjob-mono, ui-monospace, monospace); font-size: 11px; }
.gap { height: 24px; line-height: 24px; background: var(--warnbg); color: var(--warn); display: flex; align-items: center; gap: 10px; padding: 0 16px; white-space: nowrap; overflow: hidden; }
.gap::before, .gap::after { content: ""; border-top: 1px dashed currentColor; width: 76px; flex: none; opacity: .7; } .gap::after { flex: 1; }
.gap.lag { background: none; color: var(--ink2); } .gap button { text-decoration: underline; font-weight: 600; }
.day { height: 24px; line-height: 24px; color: var(--ink3); display: flex; gap: 10px; padding: 0 16px; align-items: center; white-space: nowrap; }
.day::after { content: ""; flex: 1; border-top: 1px solid var(--line); }
.fold .text { color: var(--ink3); cursor: pointer; } .fold em { font-style: normal; }
.more, .ctl { color: var(--ink3); } .ctl { border-bottom: 1px dotted; }
mark { background: var(--mark); color: var(--ink); border-radius: 2px; }
.a-bold { font-weight: 700; } .a-c-red { color: var(--err); } .a-c-green { color: var(--ok); } .a-c-yellow { color: var(--warn); } .a-c-blue, .a-c-cyan { color: var(--accent); } .a-c-magenta { color: var(--err); } .a-c-black { color: var(--ink3); }
.open { padding: 0 16px 6px 0; margin-left: calc(16px + 12.5ch + 8px); border-left: 1px solid var(--errfill); background: none; line-height: 18px; white-space: pre-wrap; overflow-wrap: anywhere; }
.open.calm { border-left-color: var(--line2); } .row:has(> .error) { background: var(--errbg); }
.open > * { padding-left: 14px; } .own { font-weight: 500; } .code { color: var(--ink2); padding-left: calc(14px + 4ch); }
.lib { display: block; padding: 0 0 0 14px; color: var(--ink3); font-size: 12px; line-height: 20px; text-align: left; }
.last { color: var(--err); font-weight: 500; } .from { color: var(--ink3); }
.kv { display: grid; grid-template-columns: minmax(80px, 160px) minmax(0, 1fr) auto; gap: 0 10px; } .kv > span { grid-column: 1; color: var(--ink3); overflow: hidden; text-overflow: ellipsis; }
.kv div { grid-column: 2; } .kv .do { grid-column: 3; opacity: 0; } .kv > :hover + .do, .kv .do:hover, .kv .do:focus-within { opacity: 1; }
@media (hover: none) { .kv .do { opacity: 1; } }
.do button { color: var(--accent); padding: 0 4px; }
.strip { position: absolute; inset: 0 0 0 auto; width: 30px; border-left: 1px solid var(--line); background: var(--well); cursor: pointer; overflow: hidden; }
.strip svg { position: absolute; inset: 0; width: 100%; height: 100%; } .v { fill: var(--donesoft); } .w { fill: var(--warnfill); } .e { fill: var(--errfill); }
.frame { position: absolute; left: 0; right: 0; border: 1px solid var(--ink2); min-height: 6px; pointer-events: none; }
.pill { position: absolute; right: 44px; bottom: 12px; height: 30px; border-radius: 15px; background: var(--pill); color: var(--onpill); font-size: 13px; line-height: 30px; padding: 0 4px 0 14px; display: flex; gap: 10px; align-items: center; z-index: 3; white-space: nowrap; }
.pill[hidden] { display: none; } .pill b { font-weight: 600; } .pill .bad { color: var(--pillerr); } .pill span.go { border: 1px solid currentColor; border-radius: 11px; line-height: 20px; padding: 0 6px 0 10px; margin-left: 2px; } .pill kbd { border-color: currentColor; margin: 0 0 0 6px; } .pill.plain { padding-right: 14px; cursor: default; }
:focus-visible { outline: 2px solid var(--focus); outline-offset: 2px; } .view:focus-visible { outline-offset: -2px; }
.empty { position: absolute; inset: 48px 46px auto 16px; color: var(--ink2); font-size: 13px; }
.said { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
@container (max-width: 640px) {
  .strip { display: none; } .view, .head { right: 0; } .head { display: none; } .head:not([hidden]) + .view { top: 0; }
  .line { grid-template-columns: 22px minmax(0, 1fr) 12ch; padding: 3px 12px 3px 4px; border-bottom: 1px solid var(--line); }
  .line > .time { order: 3; text-align: right; font-size: 11px; } .line > .col { display: none; } .line > .text { display: contents; }
  .msg { order: 2; overflow: hidden; text-overflow: ellipsis; padding-right: 6px; } .fold > .text { display: block; order: 2; }
  .attrs { order: 4; grid-column: 2 / -1; overflow: hidden; text-overflow: ellipsis; line-height: 16px; } .jobs .attrs::before { content: attr(data-job) "  "; color: var(--ink3); }
  .acts, .row:hover .acts { display: none; } .open { margin-left: 16px; } .kv { grid-template-columns: 30% 1fr; } .kv .do { display: none; } .pill { right: 12px; } .gap::before { width: 20px; }
}
@media (forced-colors: active) { .error .level, .critical { forced-color-adjust: none; } .cursor > .line { outline: 2px solid Highlight; } .frame { border-color: CanvasText; } .v, .w, .e { fill: CanvasText; } }
@media (pointer: coarse) { .pill { height: 36px; border-radius: 18px; } }
`;

"""The style of a report: light and dark, from the width of a phone to a page of paper."""

STYLE = """
:root { color-scheme: light dark; --font: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
  --paper: #ffffff; --panel: #f6f7f9; --ink: #1c2128; --muted: #5d6673; --grid: #dfe3e8; --link: #0b5cad;
  --good: #1a7f4b; --bad: #c02b3c; --busy: #9a5b00;
  --series-1: #2a6fdb; --series-2: #d1650c; --series-3: #1f8a5b; --series-4: #8a4fd0; --series-5: #c93a6b;
  --series-6: #0f8a99; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #12151a; --panel: #1b2027; --ink: #e6e9ee; --muted: #9aa4b1; --grid: #333b46; --link: #7ab4ff;
  --good: #5fd093; --bad: #ff8087; --busy: #f0b35a;
  --series-1: #6ea8ff; --series-2: #ffa057; --series-3: #5ed39d; --series-4: #c29bff; --series-5: #ff86b0;
  --series-6: #5fd0dd; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 70rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 var(--font); overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
#status h2 { display: none; }
p { margin: .5rem 0; max-width: 46rem; }
a { color: var(--link); }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: 1rem 0 0; font-size: .9rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, "DejaVu Sans Mono", monospace; font-size: .85em; }
pre { background: var(--panel); padding: .75rem; overflow-x: auto; border-radius: 6px; }
.note, .missing, figcaption, caption { color: var(--muted); font-size: .9rem; }
.missing { border-left: 3px solid var(--grid); padding-left: .75rem; }
.state { font-size: .85rem; font-weight: 600; margin-left: .5rem; white-space: nowrap; }
.finished { color: var(--good); } .failed, .died { color: var(--bad); }
.running, .interrupted, .preempted, .paused { color: var(--busy); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0 0; }
.tiles div { background: var(--panel); border-radius: 8px; padding: .7rem .9rem; }
.tiles b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--muted); font-size: .85rem; }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .2rem 1rem; margin: .75rem 0; }
dt { color: var(--muted); } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.5rem; }
figure { margin: 0; min-width: 0; }
.plot svg { display: block; width: 100%; height: auto; max-width: 27rem; }
.plot figcaption b { color: var(--ink); font-weight: 600; }
.wide { overflow-x: auto; margin: 1rem 0; }
.keys { display: flex; flex-wrap: wrap; gap: 0 .9rem; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; margin-right: .35em; border-radius: 2px;
  background: var(--key); vertical-align: -.05em; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--grid); }
th { color: var(--muted); font-weight: 500; white-space: nowrap; }
.numbers td, .numbers th { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.numbers td:first-child, .numbers th:first-child { text-align: left; }
details { margin: .75rem 0; } summary { cursor: pointer; color: var(--link); font-size: .9rem; }
.sheet { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: .75rem; margin: .75rem 0; }
@media (min-width: 48rem) { .sheet { grid-template-columns: repeat(8, minmax(0, 1fr)); }
  .pair .sheet { grid-template-columns: repeat(4, minmax(0, 1fr)); } }
.pairs { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 21rem), 1fr)); gap: .5rem 2.5rem; }
.pair h3 { margin: .75rem 0 .25rem; }
.sheet img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain; background: var(--panel);
  border-radius: 4px; }
.sheet figcaption { font-size: .78rem; line-height: 1.35; margin-top: .25rem; overflow-wrap: anywhere; }
.sheet b { color: var(--ink); font-weight: 600; }
footer { margin-top: 3rem; color: var(--muted); font-size: .85rem; }
@media print { :root { color-scheme: light; --paper: #fff; --panel: #f6f7f9; --ink: #1c2128; --muted: #5d6673;
  --grid: #dfe3e8; --link: #1c2128; --good: #1a7f4b; --bad: #c02b3c; --busy: #9a5b00; --series-1: #2a6fdb;
  --series-2: #d1650c; --series-3: #1f8a5b; --series-4: #8a4fd0; --series-5: #c93a6b; --series-6: #0f8a99; }
  body { padding: 0; font-size: 11pt; } nav, details:not([open]) { display: none; }
  h2, h3, figcaption { break-after: avoid; } figure, tr, .tiles { break-inside: avoid; } }
"""

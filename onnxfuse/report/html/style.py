"""How pages look: one style sheet, light and dark, wide and narrow, on paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f7f9; --card: #ffffff; --sunk: #f1f3f6; --line: #dfe3e9; --grid: #e6e9ee;
  --text: #1b2129; --soft: #56606d; --link: #0b5cad;
  --first: #b45f06; --second: #0b6bcb; --good: #14713d; --bad: #b3261e;
  --node: #fdf3e7; --node-line: #d99a4e; --made: #e8f2fd; --made-line: #4a90d9;
  --good-ground: #e7f5ec; --bad-ground: #fdebe9;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161b; --card: #1a2027; --sunk: #212932; --line: #323c48; --grid: #2b343f;
    --text: #e7ebf0; --soft: #a3aebb; --link: #7ab8f5;
    --first: #e5a35a; --second: #6cb0f2; --good: #6fd096; --bad: #ff9c93;
    --node: #33291b; --node-line: #a87632; --made: #192c40; --made-line: #4685c4;
    --good-ground: #17301f; --bad-ground: #3a1e1c;
  }
}
*, *::before, *::after { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: 1rem; }
body {
  margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans",
    sans-serif;
  overflow-wrap: anywhere;
}
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  font-size: .875em; }
a { color: var(--link); }
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1rem; }
header { padding-top: 2.5rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; letter-spacing: -.015em; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .25rem; letter-spacing: -.01em; }
h3 { font-size: 1rem; line-height: 1.4; margin: 0; font-weight: 600; }
h4 { font-size: .8125rem; line-height: 1.4; margin: 1.25rem 0 .375rem; color: var(--soft);
  font-weight: 600; }
p { margin: .25rem 0 1rem; max-width: 46rem; }
.soft, header p { color: var(--soft); }
.scroll + p { margin-top: .75rem; }
nav { margin: 1.25rem 0 0; display: flex; flex-wrap: wrap;
  gap: .25rem 1.25rem; font-size: .9375rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 1.25rem; margin: 1.25rem 0; }
footer { color: var(--soft); font-size: .8125rem; padding-bottom: 2.5rem; }

figure { margin: 0 0 1rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem;
  margin: 1.5rem 0 0; }
.figures div { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: .75rem 1rem; }
.figures dt { color: var(--soft); font-size: .8125rem; }
.figures dd { margin: .125rem 0 0; font-size: 1.25rem; font-weight: 600; line-height: 1.3;
  font-variant-numeric: tabular-nums; }
.figures dd + dd { color: var(--soft); font-size: .8125rem; font-weight: 400; }
.verdict { max-width: none; border-radius: 12px; padding: 1rem 1.25rem; margin: 1.5rem 0 0;
  font-size: 1.25rem; font-weight: 600; }
.verdict.good { background: var(--good-ground); color: var(--good); }
.verdict.bad { background: var(--bad-ground); color: var(--bad); }
.good { color: var(--good); } .bad { color: var(--bad); }

.scroll + .scroll { margin-top: 1.25rem; }
.scroll { overflow-x: auto; max-width: 100%; }
.scroll:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link);
  outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .875rem;
  font-variant-numeric: tabular-nums; overflow-wrap: normal; }
caption { text-align: left; color: var(--soft); padding-bottom: .375rem; }
th, td { padding: .3125rem .75rem .3125rem 0; text-align: right;
  border-bottom: 1px solid var(--grid); vertical-align: baseline; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; font-size: .8125rem; vertical-align: bottom; }
tbody th { font-weight: 500; }
th:first-child, td.text, th.text { text-align: left; }
td.text { white-space: normal; min-width: 11rem; }
td.plot { width: 45%; min-width: 6rem; padding-right: 0; vertical-align: middle; }
tr.total th, tr.total td { font-weight: 600; border-bottom: 0; }
td.warn { color: var(--bad); font-weight: 600; }

details > summary { cursor: pointer; }
details.fold { border-top: 1px solid var(--line); }
details.fold > summary { display: flex; flex-wrap: wrap; gap: 0 .75rem; align-items: baseline;
  padding: .75rem 0; list-style: none; }
details.fold > summary::-webkit-details-marker { display: none; }
details.fold > summary::before { content: "\\25B8"; color: var(--soft); width: .75rem; }
details.fold[open] > summary::before { content: "\\25BE"; }
details.fold > summary h3 { flex: 1 1 14rem; }
details.fold > summary span { color: var(--soft); font-size: .875rem; }
details.fold > div { padding: 0 0 1.25rem; }
details.more { margin: .5rem 0; }
details.more > summary { color: var(--link); font-size: .9375rem; }
.number { color: var(--soft); font-weight: 400; margin-right: .375rem; }
.change { display: flex; flex-wrap: wrap; gap: 1rem; align-items: stretch; }
.change figure { flex: 1 1 auto; min-width: 0; margin: 0; background: var(--sunk);
  border-radius: 10px; padding: .75rem; }
.charts { margin-bottom: 1rem; display: flex; flex-wrap: wrap; gap: 1rem 2rem; }
.charts figure { flex: 1 1 17rem; min-width: 0; margin: 0; }
figcaption { color: var(--soft); font-size: .8125rem; margin-bottom: .5rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(10.5rem, 1fr));
  gap: .5rem 1.25rem; margin: .5rem 0 1rem; font-size: .875rem; }
.facts dt { color: var(--soft); font-size: .8125rem; }
.facts dd { margin: 0; font-variant-numeric: tabular-nums; }
.names { columns: 20rem; column-gap: 2rem; padding: 0; margin: .5rem 0; list-style: none;
  font-size: .875rem; }
.names li { break-inside: avoid; padding: .0625rem 0; }
.names span { color: var(--soft); }
.reason { border-top: 1px solid var(--grid); padding: .75rem 0; }
.reason p { margin: .125rem 0 .25rem; }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .8125rem;
  color: var(--soft); padding: 0; margin: 0 0 .75rem; list-style: none; }
.key li::before { content: ""; display: inline-block; width: .625rem; height: .625rem;
  margin-right: .375rem; border-radius: 50%; background: currentColor; }
.key .first::before { background: var(--first); }
.key .second::before { background: var(--second); }
.key .limit::before { width: 2px; height: .875rem; border-radius: 0; background: var(--bad);
  vertical-align: -2px; margin-left: .25rem; margin-right: .625rem; }

svg { display: block; overflow: visible; }
svg text { fill: var(--text); font-family: inherit; }
svg.graph { margin: 0 auto; max-width: 100%; height: auto; font-size: 11px; }
svg.graph.huge { max-width: none; margin: 0; }
svg.graph text { text-anchor: middle; fill: var(--soft); }
svg.graph .name { font-size: 12px; font-weight: 600; fill: var(--text); }
svg.graph rect { stroke-width: 1.2; }
svg.graph .node rect { fill: var(--node); stroke: var(--node-line); }
svg.graph .made rect { fill: var(--made); stroke: var(--made-line); }
svg.graph .tensor rect { fill: var(--card); stroke: var(--line); }
svg.graph .tensor .name { font-weight: 500; }
svg.graph .edge { fill: none; stroke: var(--soft); stroke-width: 1.2; }
svg.chart .tick { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg.chart .label { font-size: 12px; }
svg.chart .grid { stroke: var(--grid); } svg.chart .track { stroke: var(--line); }
svg.chart .limit { stroke: var(--bad); stroke-width: 2; }
svg.chart .bars { fill: var(--second); }
svg.chart .tally { stroke: var(--second); stroke-width: 1.5; }
svg.chart .dot.first { fill: var(--card); stroke: var(--first); stroke-width: 2.5; }
svg.chart .dot.second { fill: var(--second); }
svg.chart .whisker { stroke-width: 4; stroke-linecap: round; opacity: .45; }
svg.chart .whisker.first { stroke: var(--first); }
svg.chart .whisker.second { stroke: var(--second); }
svg.bar .first { fill: var(--first); } svg.bar .second { fill: var(--second); }

@media (max-width: 40rem) {
  body { font-size: 15px; }
  header { padding-top: 1.5rem; }
  header, main, footer { padding-left: .75rem; padding-right: .75rem; }
  section { padding: 1rem .875rem; }
  .figures { grid-template-columns: 1fr 1fr; gap: .5rem; }
  .figures div:last-child:nth-child(odd) { grid-column: 1 / -1; }
  .facts { grid-template-columns: 1fr 1fr; gap: .5rem .75rem; }
  .figures div { padding: .625rem .75rem; }
  .figures dd { font-size: 1.0625rem; }
  .change figure { padding: .625rem; }
  svg.graph.wide { max-width: none; margin: 0; }
  td.plot { width: 30%; min-width: 4rem; }
  table { font-size: .8125rem; }
  th, td { padding-right: .5rem; }
  td:last-child { padding-right: 0; }
}
@media print {
  :root { color-scheme: light; }
  body { background: none; font-size: 11pt; }
  nav { display: none; }
  section { border: 0; padding: 0; }
  details::details-content { content-visibility: visible; display: block; }
  .change, .charts, tr { break-inside: avoid; }
  .scroll { overflow: visible; }
}
"""

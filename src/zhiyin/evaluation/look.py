"""The page's style: paper and ink by day, the same by night; nothing is fetched."""

COLOURS = 8
"""How many series or categories have a colour of their own."""

STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf6; --card: #ffffff; --ink: #1c1b19; --soft: #6d6a63; --rule: #e7e3d9;
  --bar: #e6e0d0; --s0: #c2382b; --s1: #2f6f9f; --s2: #d08a1d; --s3: #3f8f6b; --s4: #7d5ba6; --s5: #55606b;
  --s6: #b0567f; --s7: #8a6d3b; }
@media (prefers-color-scheme: dark) { :root { --paper: #151513; --card: #1d1d1a; --ink: #eeebe3; --soft: #a09b90;
  --rule: #33322d; --bar: #3a382f; --s0: #ff7361; --s1: #69b1e4; --s2: #f0b552; --s3: #6fcf9f; --s4: #b795e6;
  --s5: #a7b2bd; --s6: #ec8fb9; --s7: #cfb07a; } }
* { box-sizing: border-box; }
html { background: var(--paper); color: var(--ink); -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 1200px; padding: 2.4rem 1rem 3rem;
  font: 16px/1.55 ui-sans-serif, system-ui, "Helvetica Neue", "Noto Sans", "DejaVu Sans", sans-serif; }
h1, h2, .big b { font-family: "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "DejaVu Serif", serif;
  font-weight: 600; letter-spacing: -0.01em; text-wrap: balance; }
h1 { font-size: clamp(1.6rem, 4.6vw, 2.7rem); line-height: 1.18; margin: .2rem 0 .9rem; max-width: 24em; }
h1 em { font-style: normal; color: var(--s0); }
h2 { font-size: 1.3rem; line-height: 1.25; margin: 0 0 .25rem; }
p { margin: 0 0 .7rem; max-width: 46em; }
.kicker { color: var(--soft); font-size: .82rem; letter-spacing: .06em; text-transform: uppercase; margin: 0; }
.soft { color: var(--soft); font-size: .92rem; }
.big { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.4rem, 1fr)); gap: .2rem 1.6rem; margin: 1.6rem 0;
  border-top: 2px solid var(--ink); }
.big div { padding: .7rem 0; } .big b { display: block; font-size: 2rem; line-height: 1.1; }
.big span { color: var(--soft); font-size: .86rem; }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 27rem), 1fr)); gap: 1.1rem; }
section { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 1.1rem 1.1rem 1rem;
  min-width: 0; }
section.wide { grid-column: 1 / -1; }
.flow { columns: 2 27rem; column-gap: 1.1rem; margin: 1.1rem 0; }
.flow section { break-inside: avoid; margin: 0 0 1.1rem; }
section p { font-size: .92rem; color: var(--soft); }
svg { display: block; width: 100%; height: auto; overflow: visible; font: 11px ui-sans-serif, system-ui, "Noto Sans",
  "DejaVu Sans", sans-serif; }
svg text { fill: var(--soft); } svg .label { fill: var(--ink); font-size: 11.5px; } svg .note { font-size: 9.5px; }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .base { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.line.s0:not(.more) { stroke-width: 2.8; }
.line.more, .whisker.more { stroke-dasharray: 4 4; }
.band { opacity: .16; stroke: none; } .whisker { stroke-width: 1.6; opacity: .75; } .bar { fill: var(--bar); }
.chosen { fill: none; stroke: var(--ink); stroke-width: 1.4; }
.dot { stroke: var(--card); stroke-width: .8; } .hidden { fill-opacity: 0; stroke: none; } .speck { opacity: .72; }
.key { display: flex; flex-wrap: wrap; gap: .15rem 1rem; list-style: none; margin: .5rem 0 .6rem; padding: 0;
  font-size: .86rem; }
.key i { display: inline-block; width: .78em; height: .78em; border-radius: 50%; margin-right: .42em; }
.key i.bar { border-radius: 2px; background: var(--bar); }
.scroll { overflow-x: auto; margin: .4rem 0 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: right; padding: .36rem .55rem; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; position: sticky; left: 0;
  background: var(--card); }
td:first-child { white-space: normal; min-width: 8rem; max-width: 24rem; overflow-wrap: anywhere; }
thead th { color: var(--soft); font-weight: 500; }
td small { display: block; color: var(--soft); font-size: .74rem; } td.best { font-weight: 700; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 20rem), 1fr)); gap: .5rem 1.6rem;
  margin: 0; font-size: .9rem; } dt { font-weight: 600; } dd { margin: 0; color: var(--soft); }
footer { margin-top: 1.6rem; } footer p { font-size: .88rem; color: var(--soft); }
@media (max-width: 40rem) { svg, svg .label { font-size: 12.5px; } svg .note { font-size: 10.5px; }
  thead th { white-space: normal; vertical-align: bottom; }
  td:first-child { max-width: 8.6rem; }
  section { padding: .9rem .8rem; } .big { grid-template-columns: 1fr 1fr; } .big b { font-size: 1.6rem; } }
@media print { body { max-width: none; } section { break-inside: avoid; } }
""" + "".join(
    f".line.s{i}, .whisker.s{i} {{ stroke: var(--s{i}); }} .dot.s{i}, .band.s{i}, .speck.c{i} {{ fill: var(--s{i}); }} "
    f"i.s{i} {{ background: var(--s{i}); }} "
    f".dot.more.s{i} {{ fill: var(--card); stroke: var(--s{i}); stroke-width: 1.6; }} "
    f"i.more.s{i} {{ background: none; border: 2px solid var(--s{i}); }}\n"
    for i in range(COLOURS)
)


def look(at: int, prefix: str = "s") -> str:
    """The classes of a series or category: past the last colour they come again, dashed and hollow."""
    return f"{prefix}{at % COLOURS}" + " more" * (at >= COLOURS)

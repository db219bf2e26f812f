"""One page that shows an evaluation: drawn from its document alone, with nothing that must be fetched."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from zhiyin.evaluation import plots
from zhiyin.evaluation.look import STYLE, look
from zhiyin.evaluation.plots import number

WORDS = {
    "recall": "Targets found among the first k, of all targets of the query.",
    "ndcg": "The same, an early place counting more: 1 / log₂(place + 1), divided by the best order's.",
    "hit": "Queries with at least one target among the first k.",
    "mrr": "1 / the place of the first target found.",
    "precision": "Targets among the first k, divided by k.",
    "map": "Precision at each target found, summed and divided by the lesser of k and the targets.",
    "coverage": "The share of the catalogue that anyone is offered.",
    "novelty": "Mean self-information of a candidate in bits: how rarely it was met in training.",
    "popularity lift": "Training events of a mean candidate / of a mean target: 1 is as popular as what users chose.",
    "gini": "How unequally items are offered: 0 all alike, 1 one takes all.",
    "diversity": "1 − cosine between a list's candidates by their category, mean over pairs.",
}


def page(document: Mapping[str, Any], title: str = "Evaluation") -> str:
    """The HTML of an analysis (`analyse`). `training` (`progress`), `embedding`, `index` (`index_part`) and `through`
    (of `EndToEnd`) are shown where the document has them."""
    first = [_recall(document), _popularity(document), _through(document), _lists(document)]
    parts = [*_slices(document), _increments(document)]
    for name, draw in (("training", _training), ("embedding", _embedding), ("index", _index)):
        if document.get(name):
            parts.append(draw(document[name]))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
        f'<header><p class="kicker">zhiyin · {escape(title)}</p>{_headline(document)}</header>\n'
        f'<main><div class="grid">\n{"".join(first)}</div><div class="flow">\n{"".join(parts)}</div>'
        f'<div class="grid">\n{_table(document)}</div></main>\n'
        f"{_footer(document)}</body></html>\n"
    )


def _headline(document: Mapping[str, Any]) -> str:
    k, metrics = document["k"], document["metrics"]
    first, *others = metrics
    name, mine = f"recall@{k}", metrics[first][f"recall@{k}"]
    words = f"Among {k} candidates, <em>{escape(first)}</em> finds {mine:.1%} of what users did next."
    if others:
        best = max(others, key=lambda other: metrics[other][name])
        gap = document["differences"][best][name]
        sure = "a difference that chance does not explain" if gap["p"] < 0.05 else "which may be chance"
        more = "more" if gap["difference"] >= 0 else "fewer"
        chance = "<\u00a00.001" if gap["p"] < 0.001 else f"=\u00a0{gap['p']:.3f}"
        words += (
            f" That is {abs(gap['difference']) * 100:.1f} points {more} than {escape(best)}, {sure} (p\u00a0{chance})."
        )
    figures = [
        (interval_words(document["intervals"][first][name]), f"recall@{k}"),
        (number(metrics[first][f"ndcg@{k}"]), f"ndcg@{k}"),
        (f"{metrics[first][f'coverage@{k}']:.1%}", f"of {document['catalogue']:,} items offered to someone"),
        (f"{document['queries']:,}", "queries"),
    ]
    big = "".join(f"<div><b>{figure}</b><span>{escape(told)}</span></div>" for figure, told in figures)
    return f'<h1>{words}</h1><p class="soft">{_protocol(document)}</p><div class="big">{big}</div>'


def _protocol(document: Mapping[str, Any]) -> str:
    words = document["protocol"]
    return escape(f"{words[:1].upper()}{words[1:]}.")


def interval_words(figure: Sequence[float | None]) -> str:
    """The mean, large, and the half-width of its interval, small."""
    mean, low, high = figure
    if low is None or high is None:
        return number(mean)
    return f'{number(mean)}<small class="soft"> ±{(high - low) / 2:.4f}</small>'


def _section(title: str, words: str, body: str, *, wide: bool = False) -> str:
    return f"<section{' class=wide' if wide else ''}><h2>{escape(title)}</h2><p>{words}</p>{body}</section>\n"


def _key(names: Sequence[str], prefix: str = "s", bar: str = "") -> str:
    chips = [f'<li><i class="bar"></i>{escape(bar)}</li>'] if bar else []
    chips += [f'<li><i class="{look(at, prefix)}"></i>{escape(name)}</li>' for at, name in enumerate(names)]
    return f'<ul class="key">{"".join(chips)}</ul>'


def _recall(document: Mapping[str, Any]) -> str:
    series = {name: [(float(k), *figure) for k, figure in curve.items()] for name, curve in document["curves"].items()}
    words = "How much of what users did next is among the first k candidates. Bands: 95 %, bootstrap over users."
    drawn = plots.curves(series, x="k candidates", y="recall", log=True)
    return _section("Found among k", words, _key(list(series)) + drawn)


def _popularity(document: Mapping[str, Any]) -> str:
    groups = document["popularity"]
    labels = [str(at + 1) for at in range(len(groups["items"]))]
    words = (
        f"Ten groups of items that each had a tenth of the training events: the {groups['items'][0]:,} most popular "
        f"first, the {groups['items'][-1]:,} least popular last. Near the bars: offered as often as chosen."
    )
    drawn = plots.columns(
        groups["targets"], groups["scorers"], labels, x="popularity group", y=f"share of the first {document['k']}"
    )
    return _section("Popular or not", words, _key(list(groups["scorers"]), bar="what users chose") + drawn)


def _table(document: Mapping[str, Any]) -> str:
    intervals = document["intervals"]
    names = [name for name in next(iter(intervals.values())) if not _told_by_recall(intervals, name)]
    rows = {name: {scorer: row[name] for scorer, row in intervals.items()} for name in names}
    left_out = "" if len(names) == len(next(iter(intervals.values()))) else " With one target a query, hit is recall."
    words = f"Each with its 95 % interval; the best of a line is bold.{left_out}"
    return _section("All figures", words, _figures(rows), wide=True)


def _told_by_recall(intervals: Mapping[str, Any], name: str) -> bool:
    same = name.replace("hit@", "recall@")
    return same != name and all(abs(row[name][0] - row[same][0]) < 1e-9 for row in intervals.values())


def _figures(rows: Mapping[str, Mapping[str, Sequence[float | None]]]) -> str:
    """A line for each name, a column for each scorer; of means, with an interval where they have one."""
    head = "".join(f"<th>{escape(scorer)}</th>" for scorer in next(iter(rows.values())))
    body = "".join(f"<tr><td>{escape(name)}</td>{''.join(_cells(row))}</tr>" for name, row in rows.items())
    return f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cells(row: Mapping[str, Sequence[float | None]]) -> list[str]:
    best = max(figure[0] or 0 for figure in row.values())
    return [
        f"<td{' class=best' if figure[0] == best else ''}>{number(figure[0])}"
        f"<small>{number(figure[1])} – {number(figure[2])}</small></td>"
        if len(figure) > 1
        else f"<td>{_alike(figure[0], best)}</td>"
        for figure in row.values()
    ]


def _alike(value: float | None, best: float) -> str:
    """With as many digits as the others of its line."""
    return number(value) if value is None or best < 1 else f"{value:,.2f}"


def _slices(document: Mapping[str, Any]) -> list[str]:
    names, metric = list(document["metrics"]), f"recall@{document['k']}"
    found = []
    for one in document["slices"]:
        rows = [
            (
                part["name"],
                f"{part['queries']:,} {'query' if part['queries'] == 1 else 'queries'}",
                {n: row[metric] for n, row in part["scorers"].items()},
            )
            for part in one["parts"]
            if part["queries"]
        ]
        what = "by the user asked" if one["of"] == "queries" else "of the targets that are such items"
        drawn = plots.dots(rows, names, x=metric)
        found.append(_section(f"By {one['name']}", f"{metric} {what}.", _key(names) + drawn))
    return found


def _increments(document: Mapping[str, Any]) -> str:
    found = document["increments"]
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{number(found['alone'][name])}</td><td>{number(added)}</td></tr>"
        for name, added in found["adds"].items()
    )
    table = (
        '<div class="scroll"><table><thead><tr><th></th><th>alone</th><th>adds to the others</th></tr></thead>'
        f"<tbody>{rows}<tr><td>all together</td><td>{number(found['union'])}</td><td></td></tr></tbody></table></div>"
    )
    words = f"Recall with {found['k']} candidates of each, and what is lost when one is taken away from the rest."
    return _section("As channels", words, table)


def _lists(document: Mapping[str, Any]) -> str:
    lists = document["lists"]
    names = next(iter(lists.values()))
    rows = {name: {scorer: [row[name]] for scorer, row in lists.items()} for name in names}
    return _section(
        "What the lists are like", "What recall cannot tell; the words are at the end.", _figures(rows), wide=True
    )


def _through(document: Mapping[str, Any]) -> str:
    k = document["k"]
    found = [one for one in document.get("through", ()) if one["k"] == k]
    if not found:
        return ""
    heads = (
        "recall, exact",
        "recall, served",
        "overlap",
        "items that pass",
        "targets that pass",
        "queries",
        "ms a query",
    )
    head = "".join(f"<th>{name}</th>" for name in heads)
    rows = "".join(
        f"<tr><td>{escape(one['filter']) or 'no filter'}</td><td>{one['exact_recall']:.4f}</td>"
        f"<td>{one['recall']:.4f}</td><td>{one['overlap']:.4f}</td><td>{one['selectivity']:.1%}</td>"
        f"<td>{one['reach']:.1%}</td><td>{one['queries']:,}</td><td>{one['milliseconds']:.3g}</td></tr>"
        for one in found
    )
    which = f"the index of release {escape(document['release'])}" if document["release"] else "the live release's index"
    words = (
        f"Exact search of the towers beside {which}, {k} candidates each. With a filter, both look among the items "
        "that pass it; targets that do not are left out."
    )
    table = f'<div class="scroll"><table><thead><tr><th></th>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    return _section("What reaches users", words, table, wide=True)


def _training(training: Mapping[str, Any]) -> str:
    measure = training["measure"]
    body = plots.curves({"loss": training["loss"]}, x="epoch", y="loss", classes=["s5"], from_zero=False, start=0)
    if looks := training["validation"]:
        best = max(looks, key=lambda look: look[1])
        body += plots.curves(
            {measure: looks},
            x="epoch",
            y=f"validation {measure}",
            classes=["s0"],
            from_zero=False,
            marks=True,
            start=0,
            chosen=best,
        )
    words = f"Loss, and {escape(measure)} on validation, whose best, ringed, chose the step."
    return _section("Training", words, body)


def _embedding(found: Mapping[str, Any]) -> str:
    words = (
        f"{len(found['points']):,} items by the two main axes of their vectors ({sum(found['explained']):.0%} of the "
    )
    words += f"variance), coloured by {escape(found['column'])}." if found["column"] else "variance)."
    called = [plots.short(name, 80) for name in found["names"]]
    if found["column"]:
        called = [
            f"{name}: {found['categories'][code]}" for name, (_, _, code) in zip(called, found["points"], strict=True)
        ]
    drawn = plots.scatter(found["points"], called)
    return _section("Map of the items", words + " Point at one to see its name.", _key(found["categories"]) + drawn)


def _index(found: Mapping[str, Any]) -> str:
    points = [(p["milliseconds"], p["overlap"]) for p in found["points"]]
    words = (
        f"{escape(found['name'])}: one query's median search time and the share of exact search's {found['k']} that is "
        f"found, of {found['queries']:,} queries, as {escape(found['knob'])} grows. Ringed: as it is served."
    )
    served = next((p["milliseconds"], p["overlap"]) for p in found["points"] if p["effort"] == found["effort"])
    drawn = plots.curves(
        {found["name"]: points},
        x="milliseconds a query",
        y=f"overlap@{found['k']}",
        log=True,
        classes=["s1"],
        from_zero=False,
        marks=True,
        chosen=served,
        told=f"{found['knob']} {found['effort']}",
    )
    return _section("The index", words, drawn)


def _footer(document: Mapping[str, Any]) -> str:
    shown = [
        name.split("@")[0] for row in (document["intervals"], document["lists"]) for name in next(iter(row.values()))
    ]
    words = "".join(f"<div><dt>{name}</dt><dd>{WORDS[name]}</dd></div>" for name in dict.fromkeys(shown))
    return (
        f'<footer class="grid"><section class="wide"><h2>How it was measured</h2><p>{_protocol(document)}</p>'
        "<p>Intervals are the 2.5 and 97.5 % quantiles of 1,000 bootstrap samples of users. Differences are paired, "
        "query by query; p is from 10,000 random exchanges of the two sides of each user. Every number of this page is "
        f"in the JSON file beside it.</p><dl>{words}</dl></section></footer>"
    )

"""What the command line and the demo show a person, on a terminal of 80 columns or in a file."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from zhiyin.data.datasets import DataSet
    from zhiyin.evaluation.report import Report
    from zhiyin.evaluation.saved import Comparison
    from zhiyin.evaluation.through import EndToEnd
    from zhiyin.learning.fit import Progress as Training
    from zhiyin.release import Release
    from zhiyin.trials import Trial

PIPE_WIDTH = 120
"""Columns that a table may take where there is no terminal and COLUMNS does not say."""


def screen() -> Console:
    """Where a person reads: stderr, so that stdout is free for what a program reads."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(stderr=True, highlight=False, width=PIPE_WIDTH)
    return console


def behind_words(report: "Report") -> str:
    """Where another scorer finds more than the model, which is the first, at the middle k; else nothing."""
    model, *others = report.rows
    measures = [name for name in report.rows[model] if name.startswith("recall@")]
    measure = sorted(measures, key=lambda name: int(name.partition("@")[2]))[len(measures) // 2]
    best = max(others, key=lambda name: report.rows[name][measure], default=model)
    theirs, ours = report.rows[best][measure], report.rows[model][measure]
    if theirs <= ours:
        return ""
    return (
        f"{best} finds more than {model}: {measure} {theirs:.4f} against {ours:.4f}. `zhiyin sweep` looks for better "
        "settings; until then a channel of the recipe's \\[online] can serve what finds more, alone or beside it"
    )


def outdated_words(tables: Sequence[str], recipe: Path) -> str:
    """What of a recipe says something else than what was trained with."""
    named = escape(" and ".join(f"[{table}]" for table in tables))
    return f"{named} changed since the last fit; this is the model as it was trained: zhiyin fit {recipe} --fresh"


def say(console: Console, words: str, style: str | None = None) -> None:
    """A sentence: wrapped between words on a terminal, one line in a file or a pipe."""
    console.print(words, style=style, soft_wrap=not console.is_terminal)


@contextmanager
def training_bar(console: Console) -> Iterator[Callable[["Training"], None]]:
    """What a `fit` can be watched by: a progress bar on a terminal, elsewhere one line an epoch."""
    if not console.is_terminal:
        yield _training_lines(console)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=12 if console.width < 100 else 32),
        TextColumn("{task.fields[words]}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None, words="")

        def watch(training: "Training") -> None:
            recall = "" if training.recall is None else f"  recall {training.recall:.4f}"
            bar.update(
                task,
                total=training.steps,
                completed=training.step,
                description=f"epoch {training.epoch:.1f}",
                words=f"loss {training.loss:.3f}  {training.examples_per_second:,.0f}/s{recall}",
            )

        yield watch
        bar.update(task, visible=bar.tasks[0].total is not None)  # a run that was finished before has no bar


def _training_lines(console: Console) -> Callable[["Training"], None]:
    told = 0

    def watch(training: "Training") -> None:
        nonlocal told
        if training.recall is not None and int(training.epoch) > told:
            told = int(training.epoch)
            say(
                console,
                f"epoch {training.epoch:.1f}: loss {training.loss:.3f}, validation recall {training.recall:.4f}, "
                f"best {training.best:.4f}, {training.examples_per_second:,.0f} examples/s",
            )

    return watch


class Looked:
    """Passes on what a `fit` tells, and keeps the last of it."""

    def __init__(self, watch: Callable[["Training"], None]) -> None:
        self._watch, self.last = watch, cast("Training | None", None)

    def __call__(self, training: "Training") -> None:
        self.last = training
        self._watch(training)


def profile_table(training: "Training") -> Table:
    """Where the time of a run's steps went, the most first."""
    table = Table("part of a step", "seconds", "share", "ms a step", box=None)
    whole = sum(training.seconds.values()) or 1.0
    for name, seconds in sorted(training.seconds.items(), key=lambda part: -part[1]):
        each = 1e3 * seconds / max(1, training.step)
        table.add_row(name, f"{seconds:.2f}", f"{seconds / whole:.0%}", f"{each:.2f}")
    return table


def trial_words(
    console: Console, status: Callable[[str], None], trials: int
) -> tuple[Callable[[int, Mapping[str, Any], "Training"], None], Callable[["Trial"], None]]:
    """What a sweep is watched by: where its trial stands, and a line for each that is finished."""

    def watch(number: int, values: Mapping[str, Any], training: "Training") -> None:
        best = f", best recall {training.best:.4f}" if training.best >= 0 else ""
        status(f"trial {number + 1} of {trials}: epoch {training.epoch:.1f}{best}  {escape(_settings(values))}")

    def told(trial: "Trial") -> None:
        recall = "" if trial.recall is None else f" {trial.recall:.4f}"
        why = f": {trial.words}" if trial.words else ""
        say(console, f"trial {trial.number}: {trial.state}{recall}  {escape(_settings(trial.values) + why)}")

    return watch, told


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {_cell(value)}" for path, value in values.items())


def trials_table(ranked: Sequence["Trial"], measure: str, most: int = 10) -> Table:
    """The best trials, their values, and how long they took."""
    paths = list(ranked[0].values) if ranked else []
    table = Table("trial", measure, *map(escape, paths), "seconds", "", box=None)
    for one in ranked[:most]:
        recall = "" if one.recall is None else f"{one.recall:.4f}"
        cells = [escape(_cell(one.values[path])) for path in paths]
        state = "" if one.state == "complete" else one.state
        table.add_row(str(one.number), recall, *cells, f"{one.seconds:,.0f}", state)
    return table


def candidates_table(answer: dict[str, Any]) -> Table:
    """An answer of the service, for a person: rank, item, score, and its card."""
    names = list(dict.fromkeys(name for c in answer["candidates"] for name in (c.get("card") or {})))[:4]
    more = [name for name in ("near", "channels") if any(_MORE[name][0] in one for one in answer["candidates"])]
    table = Table("", "item", "score", *names, *more, box=None)
    for column in table.columns[:3]:
        column.no_wrap = True
    for rank, candidate in enumerate(answer["candidates"], 1):
        card = candidate.get("card") or {}
        cells = [_cell(card.get(name, "")) for name in names] + [_MORE[name][1](candidate) for name in more]
        table.add_row(str(rank), escape(candidate["item_id"]), f"{candidate['score']:.3f}", *map(escape, cells))
    return table


def missing_words(answer: Mapping[str, Any], k: int, channels: Sequence[str]) -> list[str]:
    """What of an answer is not as one may have thought who asked for `k` candidates of these `channels` (the service's
    choice, where there are none): a sentence each."""
    told = []
    if answer["unknown_items"]:
        told.append(f"not in this release, and passed over: {', '.join(answer['unknown_items'])}")
    if "degraded" in answer:
        told.append(f"the store does not answer; without it: {', '.join(answer['degraded'])}")
    told += [f"without the channel {one['channel']}: {one['why']}" for one in answer.get("dropped", ())]
    there = {*answer["channel"].split("+"), *(one["channel"] for one in answer.get("dropped", ()))}
    asked = channels or ([] if answer["history"] else ["deep"])
    told += [f"of this user {name} knows nothing: {answer['channel']} answered" for name in asked if name not in there]
    if len(answer["candidates"]) < k:
        told.append(f"{len(answer['candidates'])} of {k} candidates: no more were found")
    return told


_MORE: dict[str, tuple[str, Callable[[dict[str, Any]], str]]] = {
    "near": ("explanation", lambda one: ", ".join(near["item_id"] for near in one["explanation"]["history"])),
    "channels": ("sources", lambda one: ", ".join(source["channel"] for source in one["sources"])),
}
"""Columns that are there when they were asked for: what of a candidate each is of, and how it reads."""


def _cell(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def data_sets_table(data_sets: Mapping[str, "DataSet"]) -> Table:
    """The named data sets: what each has, its licence, its page."""
    table = Table(box=None, show_header=False, padding=(0, 2, 1, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, one in data_sets.items():
        table.add_row(name, f"{one.about}\n[dim]{one.licence}\n{one.page}[/]")
    return table


def slices_table(slices: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> Table:
    """Recall by the parts that were asked for, one line a part, one column a scorer."""
    asked = [one for one in slices if one["name"].split(" ", 1)[1] in columns]
    scorers = list(dict.fromkeys(name for one in asked for part in one["parts"] for name in part["scorers"]))
    metric = f"recall@{asked[0]['k']}" if asked else ""
    table = Table(box=None)
    table.add_column(metric, no_wrap=True)
    table.add_column("queries", justify="right", no_wrap=True)
    for scorer in scorers:
        table.add_column(scorer, justify="right", min_width=len("0.0000"), overflow="fold")
    for one in asked:
        table.add_row(f"[bold]{escape(one['name'])}[/]")
        for part in one["parts"]:
            if not part["queries"]:
                continue
            values = [f"{row[metric][0]:.4f}" for row in part["scorers"].values()]
            table.add_row(f"  {escape(part['name'])}", f"{part['queries']:,}", *values)
    return table


THROUGH_WORDS = (
    "through the live release's index, beside exact search; with a filter, both among the items that pass it"
)
"""What `through_table` is about."""


def through_table(found: Sequence["EndToEnd"]) -> Table:
    """What the live release's index lets through, a line for each filter and k; a filter is named in its first."""
    table = Table(box=None)
    table.add_column("filter", overflow="fold")
    for name in ("items", "queries", "k", "recall", "exact", "overlap", "ms a query"):
        table.add_column(name, justify="right", no_wrap=True)
    for before, one in zip([None, *found], found, strict=False):
        figures = [f"{value:.4f}" for value in (one.recall, one.exact_recall, one.overlap)]
        words, share = escape(one.filter) or "[dim]none[/]", f"{one.selectivity:.1%}"
        if before is not None and before.filter == one.filter:
            words, share = "", ""
        table.add_row(words, share, f"{one.queries:,}", f"{one.k:,}", *figures, f"{one.milliseconds:.3g}")
    return table


def comparison_table(found: "Comparison", first: str, second: str) -> Table:
    """Two runs: the usual metrics of both (all are in the JSON), the difference with its interval, and p."""
    table = Table("", escape(first), escape(second), "difference", "95 % interval", "p", box=None)
    for name, one in found.metrics.items():
        same = name.replace("hit@", "recall@")
        if name.startswith(("precision@", "map@")) or (same != name and found.metrics[same] == one):
            continue
        sure = "[bold]" if one.p < 0.05 else "[dim]"
        ends = f"{one.low:+.4f} … {one.high:+.4f}"
        chance = "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
        table.add_row(name, f"{one.first:.4f}", f"{one.second:.4f}", f"{sure}{one.difference:+.4f}[/]", ends, chance)
    return table


def comparison_words(found: "Comparison", part: str) -> str:
    """What `comparison_table` is about: which models, how many queries, what the columns mean."""
    few = f"; not at k = {', '.join(map(str, found.left_out))}, which only one of them has" if found.left_out else ""
    models = f"{found.first} and {found.second}: " if found.first != found.second else ""
    return (
        f"{models}{found.queries:,} queries of {part}, paired{few}; the interval holds 95 % of bootstrap samples of "
        "users, p is the chance of so large a difference if it were arbitrary which model is which"
    )


def release_words(release: "Release") -> str:
    """What a release has proved, in a sentence."""
    proof = release.manifest["proof"]
    return (
        f"release [bold]{release.id}[/] is live: {len(release.items):,} items, towers within {proof['parity']:.0e} of "
        f"the trained ones, index overlap@{proof['k']} {proof['overlap']:.4f}"
    )


def index_name(table: Mapping[str, Any]) -> str:
    """An index in a few words: "IVFFlat, nprobe 24"."""
    rest = [f"{key} {value}" for key, value in table.items() if key != "use"]
    return ", ".join([table["use"].partition(":")[2], *rest])


def index_table(table: Mapping[str, Any]) -> str:
    """An index as a recipe says it."""
    return "\n".join(["[index]", *(f"{key} = {json.dumps(value)}" for key, value in table.items())])


def tuning_table(measured: Mapping[str, Any]) -> Table:
    """What was measured on the whole catalogue, the fastest first: the chosen index (●), how it does with less effort
    and with more, and its rivals at the least effort that reaches the target."""
    chosen = measured["chosen"]
    table = Table("index", f"overlap@{measured['target']['k']}", "queries/s", "µs", box=None)
    for column in table.columns[1:]:
        column.justify, column.no_wrap = "right", True
    points = {index_name(one["index"]): one for one in (*measured["catalogue"], *measured["curve"], chosen)}
    for name, one in sorted(points.items(), key=lambda pair: -float(pair[1]["queries_per_second"])):
        speed = one["queries_per_second"]
        each = 1e6 * measured["target"]["threads"] / speed
        mark = "● " if one is chosen else "  "
        table.add_row(mark + name, f"{one['overlap']:.4f}", f"{speed:,.0f}", f"{each:,.0f}")
    return table


def tuned_words(measured: Mapping[str, Any]) -> str:
    """What tuning came to, in a sentence."""
    chosen, target = measured["chosen"], measured["target"]
    return (
        f"[bold]{index_name(chosen['index'])}[/] finds {chosen['overlap']:.4f} of the exact top {target['k']} "
        f"(target {target['overlap']}; {chosen['held_out_overlap']:.4f} on {chosen['held_out_queries']:,} queries that "
        f"had no part in choosing it), builds in {chosen['build_seconds']:.0f} s; tuning took "
        f"{measured['seconds']:.0f} s. For the recipe:"
    )


def releases_table(releases: Sequence[Mapping[str, Any]]) -> Table:
    """The releases, oldest first (an id begins with its time, UTC), the live one marked; `kept`: what a prune spares
    and why; of one that cannot be opened what its `trouble` is."""
    table = Table("release", "items", "overlap", "size", "validation", "kept", box=None)
    table.columns[0].no_wrap = True
    for one in releases:
        name = ("● " if one["live"] else "  ") + one["id"]
        size = decimal(one["bytes"])
        kept = ", ".join(word for word, so in (("pinned", one["pinned"]), ("in use", one["in_use"])) if so)
        if "trouble" in one:
            table.add_row(name, "", "", size, escape(one["trouble"]), kept)
            continue
        measured = one.get("metrics", {}).items()
        metrics = ", ".join(f"{metric.removeprefix('validation ')} {value:.4f}" for metric, value in measured)
        table.add_row(name, f"{one['items']:,}", f"{one['proof']['overlap']:.4f}", size, metrics, kept)
    return table


def stored_words(loaded: Mapping[str, int]) -> str:
    """What was loaded into the store, in a sentence."""
    held = ", ".join(f"{loaded[what]:,} {what}" for what in ("items", "profiles", "events"))
    if loaded["newer"]:
        held += (
            f"; {loaded['newer']:,} items were put or deleted since, and keep their cards (load --replace: the log's)"
        )
    return f"the store holds {held}"

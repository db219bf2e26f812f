"""Verbs that measure: one model beside baselines, or two beside each other."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zhiyin.cli.options import Json, Ks, Part, RecipePath, cutoffs, opened, refuse_part
from zhiyin.cli.terminal import console
from zhiyin.screen import (
    THROUGH_WORDS,
    behind_words,
    comparison_table,
    comparison_words,
    outdated_words,
    say,
    slices_table,
    through_table,
)

if TYPE_CHECKING:
    from zhiyin.evaluation.through import EndToEnd


def evaluate(
    recipe: RecipePath,
    part: Part = "test",
    k: Ks = None,
    slices: Annotated[
        list[str] | None,
        typer.Option(help="A column of users, items or events to measure apart by; may be given several times."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write a page with curves, slices, intervals; its numbers as JSON.")
    ] = False,
    beside: Annotated[
        list[Path] | None,
        typer.Option(metavar="RECIPE", help="Another trained recipe of the same log and split; several times."),
    ] = None,
    seen: Annotated[
        bool, typer.Option("--seen", help="Items of the history may come back, and count where they are chosen again.")
    ] = False,
    through: Annotated[
        bool, typer.Option("--through", help="Also measure what the live release's index finds of it.")
    ] = False,
    filter: Annotated[
        list[str] | None,
        typer.Option(help="Also --through the index, among the items that pass this: 'price < 20'; several times."),
    ] = None,
    every_baseline: Annotated[
        bool, typer.Option("--every-baseline", help="Also fit EASE, ALS and BPR-MF: minutes on a large log.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the trained model on held-out events, beside popularity and item-kNN. Exact, over the whole catalogue."""
    from zhiyin import pipeline

    refuse_part(part)
    ks, read = cutoffs(k, pipeline.KS), opened(recipe)
    others = [opened(path) for path in beside or ()]
    measure: dict[str, Any] = {
        "part": part,
        "ks": ks,
        "every_baseline": every_baseline,
        "remove_seen": not seen,
        "beside": others,
    }
    released: list[EndToEnd] = []
    if through or filter:  # first: what is wrong with the release or the filter is said at once
        with console.status("searching the live release's index"):
            released = pipeline.through(read, part=part, ks=ks, filters=filter or (), remove_seen=not seen)
    with console.status("evaluating, exactly, over the whole catalogue"):
        if not (report or slices):
            found = pipeline.evaluate(read, **measure)
            document, page = found.to_json(), None
        else:
            found, document, page = pipeline.show(read, slices=slices or (), released=released, **measure)
    if released:
        document["through"] = [asdict(one) for one in released]
    if as_json:
        print(json.dumps(document))
        return
    console.print(found.table())
    if slices:
        console.print(slices_table(document["slices"], slices))
    say(console, found.words, style="dim")
    if words := behind_words(found):
        say(console, words, style="yellow")
    if tables := pipeline.outdated(read):
        say(console, outdated_words(tables, recipe), style="yellow")
    if released:
        say(console, THROUGH_WORDS)
        console.print(through_table(released))
    if page:
        say(console, f"page: {page}")


def compare(
    first: RecipePath,
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The recipe to compare with it.")],
    part: Part = "test",
    as_json: Json = False,
) -> None:
    """Say whether the second recipe's model is better than the first's, or only luckier. Both must be evaluated."""
    from zhiyin import pipeline

    refuse_part(part)
    found = pipeline.compare(opened(first), opened(second), part=part)
    if as_json:
        print(json.dumps(found.to_json()))
        return
    console.print(comparison_table(found, *_told_apart(first, second)))
    say(console, comparison_words(found, part), style="dim")


def _told_apart(first: Path, second: Path) -> tuple[str, str]:
    """The two recipes' names, with as many of their folders as it takes."""
    ends = [path.resolve().with_suffix("").parts for path in (first, second)]
    for length in range(1, max(map(len, ends)) + 1):
        one, other = ("/".join(end[-length:]) for end in ends)
        if one != other:
            return one, other
    return first.stem, second.stem

"""Verbs that measure: one model beside baselines, or two beside each other."""

import json
from pathlib import Path
from typing import Annotated

import typer

from zhiyin.cli.options import Json, Part, RecipePath, opened, refuse_part
from zhiyin.cli.terminal import console
from zhiyin.screen import comparison_table, say, slices_table


def evaluate(
    recipe: RecipePath,
    part: Part = "test",
    slices: Annotated[
        list[str] | None,
        typer.Option(help="A column of users or items to measure apart by; may be given several times."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Also write a page with curves, slices, intervals; its numbers as JSON.")
    ] = False,
    every_baseline: Annotated[
        bool, typer.Option("--every-baseline", help="Also fit EASE, ALS and BPR-MF: minutes on a large log.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the trained model on held-out events, beside popularity and item-kNN. Exact, over the whole catalogue."""
    from zhiyin import pipeline

    refuse_part(part)
    read = opened(recipe)
    with console.status("evaluating, exactly, over the whole catalogue"):
        if not (report or slices):
            found = pipeline.evaluate(read, part=part, every_baseline=every_baseline)
            document, page = found.to_json(), None
        else:
            found, document, page = pipeline.show(read, part=part, slices=slices or (), every_baseline=every_baseline)
    if as_json:
        print(json.dumps(document))
        return
    console.print(found.table())
    if slices:
        console.print(slices_table(document["slices"], slices))
    say(console, found.words, style="dim")
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
    console.print(comparison_table(found, first.stem, second.stem))
    say(
        console,
        f"{found.queries:,} queries of {part}, paired; the interval holds 95 % of bootstrap samples of users, p is the "
        "chance of so large a difference if it were arbitrary which model is which",
        style="dim",
    )

"""The verb that finds an index."""

import json
from typing import Annotated

import typer
from rich.markup import escape

from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.terminal import console
from zhiyin.screen import index_name, index_table, say, tuned_words, tuning_table


def tune(
    recipe: RecipePath,
    release: Annotated[
        str | None, typer.Option(help="Tune for a published release's vectors ('live', or its id), not the run's.")
    ] = None,
    overlap: Annotated[float | None, typer.Option(help="The share of the exact top k to be found.")] = None,
    k: Annotated[int | None, typer.Option("-k", "--k", help="How many candidates a search is for.")] = None,
    memory_mb: Annotated[int | None, typer.Option(help="The most an index may hold beside the vectors.")] = None,
    build_seconds: Annotated[float | None, typer.Option(help="The longest that one build may take.")] = None,
    seconds: Annotated[float | None, typer.Option(help="The longest that all of it may take.")] = None,
    threads: Annotated[int | None, typer.Option(help="How many search at once when they are timed.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the sample, the split of the queries and the k-means.")] = None,
    as_json: Json = False,
) -> None:
    """Find the fastest index that finds enough, by measuring on your vectors with held-out users, and print its
    `[index]` table. What an option does not say, the recipe's `[index]` does, if it is `auto:Auto`."""
    from zhiyin import pipeline

    said = {"overlap": overlap, "k": k, "memory_mb": memory_mb, "build_seconds": build_seconds}
    said |= {"seconds": seconds, "threads": threads, "seed": seed}
    changes = {name: value for name, value in said.items() if value is not None}
    read, asked = opened(recipe), "" if release == "live" else release
    with console.status("tuning") as status:
        tuned = pipeline.tune(read, changes, asked, lambda words: status.update(f"tuning: {escape(words)}"))
    table = index_table(tuned.measured["chosen"]["index"])
    if as_json:
        print(json.dumps({"recipe": table, **tuned.measured}))
        return
    console.print(tuning_table(tuned.measured))
    for one in tuned.measured["left_out"]:
        say(console, f"left out: {index_name(one['index'])}: {one['why']}", style="dim")
    say(console, tuned_words(tuned.measured))
    print(table)

"""Verbs for an interaction log: a recipe for it, a public one, a prepared one."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.terminal import console
from zhiyin.errors import SpecError
from zhiyin.screen import data_sets_table, say

if TYPE_CHECKING:
    from zhiyin.recipe import Recipe


def init(
    events: Annotated[Path, typer.Argument(help="Your interaction log: .parquet, .csv, .tsv or .arrow.")],
    items: Annotated[Path | None, typer.Option(help="A table with one row an item (title, category, …).")] = None,
    users: Annotated[Path | None, typer.Option(help="A table with one row a user (country, age, …).")] = None,
    user: Annotated[str, typer.Option(help="Column with the user's id, where the guess is wrong.")] = "",
    item: Annotated[str, typer.Option(help="Column with the item's id.")] = "",
    time: Annotated[str, typer.Option(help="Column with the event's time.")] = "",
    out: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a recipe that is there.")] = False,
    as_json: Json = False,
) -> None:
    """Look at your own files, guess their columns and features, and write a recipe with a comment on every guess."""
    from zhiyin.data.guess import inspect, recipe_text

    if out.exists() and not force:
        raise SpecError("a recipe is there already", where=str(out), remedy="Give another --out, or --force.")
    with console.status("looking at your files"):
        guess = inspect(events, items, users, user=user or None, item=item or None, time=time or None)
    out.write_text(recipe_text(guess, out.stem, out.parent))
    if as_json:
        print(json.dumps({"recipe": str(out)}))
    name = escape(str(out))
    say(console, f"wrote [bold]{name}[/]: read its comments, then run  zhiyin fit {name}")


def data(
    name: Annotated[str, typer.Argument(help="A named data set; leave it out for the list.")] = "",
    out: Annotated[
        Path, typer.Option(help="Folder for its tidy files and a recipe; NAME when left out.", show_default=False)
    ] = Path(),
    source: Annotated[
        Path | None, typer.Option("--data", help="Folder or archive that holds it, instead of fetching it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the named public data sets, or fetch one and write a recipe for it."""
    from zhiyin.data import datasets

    if not name:
        _list_datasets(as_json)
        return
    from zhiyin.data.guess import inspect, recipe_text

    folder = out if out != Path() else Path(name)
    with _bar("fetching") as bar:
        task = bar.add_task(name, total=None)
        found = datasets.load(name, data=source, cache=datasets.default_cache(), out=folder)
        bar.update(task, total=1, completed=1)
    recipe = folder / "recipe.toml"
    guess = inspect(found.events, found.items, found.users, time_unit=found.time_unit)
    recipe.write_text(recipe_text(guess, name, folder))
    if as_json:
        print(json.dumps({"events": str(found.events), "recipe": str(recipe)}))
    say(console, f"wrote {folder}/: next, run  zhiyin fit {recipe}")


def prepare(
    recipe: RecipePath,
    append: Annotated[
        Path | None, typer.Option(help="New files only (one, a folder, a pattern): add them to the prepared log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read, check, sort and number your log. `fit` does it when it was not done; do it again when the files changed."""
    prepared(opened(recipe), as_json, append)


def prepared(recipe: "Recipe", as_json: bool, append: Path | None = None) -> None:
    """Prepares the recipe's log, or adds the files `append` to it, and says what it found."""
    from zhiyin import pipeline

    with console.status("preparing") as status:

        def tell(words: str) -> None:
            status.update(f"preparing: {words}")

        summary = pipeline.append(recipe, append, tell) if append else pipeline.prepare(recipe, tell)
    if as_json:
        print(json.dumps(asdict(summary)))
    else:
        say(console, summary.words())


def _list_datasets(as_json: bool) -> None:
    from zhiyin.data.datasets import DATASETS

    if as_json:
        print(json.dumps({name: {"page": d.page, "licence": d.licence} for name, d in DATASETS.items()}))
        return
    console.print(data_sets_table(DATASETS))
    say(
        console, "next: zhiyin data NAME; where the internet is out of reach, zhiyin data NAME --data FOLDER_OR_ARCHIVE"
    )


def _bar(words: str) -> Progress:
    columns = SpinnerColumn(), TextColumn(f"{words} {{task.description}}"), TimeElapsedColumn()
    return Progress(*columns, console=console, disable=not console.is_terminal)

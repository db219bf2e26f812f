"""Verbs that bring a trained model and its log to where they are served from."""

import json
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.terminal import console
from zhiyin.errors import SpecError
from zhiyin.screen import outdated_words, release_words, say, stored_words

if TYPE_CHECKING:
    from zhiyin.recipe import Recipe


def publish(
    recipe: RecipePath,
    load: Annotated[
        bool, typer.Option(help="Also put the log's profiles, events and item cards into the store.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Turn the trained model into a release, check it against the model, and make it live."""
    from zhiyin import pipeline

    read = opened(recipe)
    pipeline.trained(read)
    loaded = _load(read) if load and not forgets(read) else {}  # first: a release goes live with its cards there
    with console.status("building the release") as status:
        release = pipeline.publish(read, watch=lambda words: status.update(f"building the release: {escape(words)}"))
    if as_json:
        print(json.dumps({"release": release.id, "proof": release.manifest["proof"], "loaded": loaded}))
        return
    say(console, release_words(release))
    if loaded:
        say(console, stored_words(loaded))
    if tables := pipeline.outdated(read):
        say(console, outdated_words(tables, recipe), style="yellow")
    say(console, f"next: zhiyin serve {recipe}")


def load(
    recipe: RecipePath,
    replace: Annotated[
        bool, typer.Option("--replace", help="The cards of items that were put or deleted since, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Put the log's profiles, latest events and item cards into the store. `publish` does it, too; run it again when
    the log has grown and was prepared again. What was put or deleted over HTTP since the item table was written keeps
    its card."""
    read = opened(recipe)
    if forgets(read):
        raise SpecError(
            "a store in memory is gone when this command ends",
            where=f"{recipe} store",
            remedy='Set [store] use = "lmdb:LMDB".',
        )
    loaded = _load(read, replace_newer=replace)
    if as_json:
        print(json.dumps(loaded))
    else:
        say(console, stored_words(loaded))


def _load(recipe: "Recipe", *, replace_newer: bool = False) -> dict[str, int]:
    from zhiyin import pipeline

    columns = (TextColumn("loading {task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"))
    store = recipe.store.open()
    try:
        with Progress(
            *columns, TimeElapsedColumn(), console=console, transient=True, disable=not console.is_terminal
        ) as bar:
            tasks: dict[str, TaskID] = {}

            def watch(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            return pipeline.load(recipe, store, watch, replace_newer=replace_newer)
    finally:
        store.close()


def forgets(recipe: "Recipe") -> bool:
    """Whether the recipe's store ends with the process."""
    from zhiyin.stores.memory import Memory

    return isinstance(recipe.store, Memory)

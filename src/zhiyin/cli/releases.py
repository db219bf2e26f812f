"""Verbs for what was published: which there are, and which is live."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.publishing import forgets
from zhiyin.cli.terminal import console
from zhiyin.errors import ReleaseError, ZhiyinError
from zhiyin.screen import releases_table

if TYPE_CHECKING:
    from zhiyin.recipe import Recipe
    from zhiyin.releases import Releases


def releases(
    recipe: RecipePath,
    prune: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Remove all but the newest N, the live one, those pinned or in use; and from the store the changes of "
            "items that all of these have absorbed (recipes that share a store must share its releases for that).",
            min=0,
        ),
    ] = None,
    pin: Annotated[str, typer.Option(metavar="ID", help="Keep this one until it is unpinned.")] = "",
    unpin: Annotated[str, typer.Option(metavar="ID", help="No longer keep it.")] = "",
    as_json: Json = False,
) -> None:
    """List the releases: which is live, which are pinned or in use by a server, their size and metrics."""
    read = opened(recipe)
    there = read.releases
    if unpin:
        there.unpin(unpin)
    if pin:
        there.pin(pin)
    if prune is not None:
        _prune(read, prune)
    told = _told(there)
    if as_json:
        kept = ("id", "live", "pinned", "in_use", "bytes", "created", "items", "proof", "metrics", "trouble")
        print(json.dumps([{name: one[name] for name in kept if name in one} for one in told]))
        return
    console.print(releases_table(told))


def rollback(
    recipe: RecipePath,
    to: Annotated[str, typer.Option(help="The release to make live; the one before the live one when left out.")] = "",
    as_json: Json = False,
) -> None:
    """Make an older release live again, after its checksums were verified. Servers follow within seconds."""
    there = opened(recipe).releases
    before = there.live() if to else there.current()
    if to:
        there.point(to)
    live = to or there.roll_back()
    if as_json:
        print(json.dumps({"live": live, "was": before}))
    else:
        console.print(f"live: {live}   (was {before or 'none'})")


def _prune(recipe: "Recipe", keep: int) -> None:
    """Releases, and then what of the changes of items none of those that are left needs."""
    from zhiyin import pipeline

    for gone in recipe.releases.prune(keep):
        console.print(f"removed {gone}")
    if forgets(recipe):
        return
    try:
        pruned = pipeline.prune_changes(recipe)
    except ZhiyinError as error:
        console.print(f"[yellow]the changes of items are all kept: {escape(str(error))}[/]")
        return
    if pruned.gone:
        console.print(f"removed from the store: {pruned.gone:,} of {pruned.gone + pruned.kept:,} changes of items")


def _told(releases: "Releases") -> list[dict[str, Any]]:
    """What there is to say of each release; its trouble, where it cannot be opened."""
    there = releases.ids()
    live, pinned, told = releases.live() if there else releases.current(), releases.pinned(), []
    for id in there:
        try:
            said = releases.manifest(id)
        except ReleaseError as error:
            said = {"trouble": error.what}
        marks = {"live": id == live, "pinned": id in pinned, "in_use": releases.is_used(id)}
        told.append({**said, "id": id, **marks, "bytes": releases.size(id)})
    return told

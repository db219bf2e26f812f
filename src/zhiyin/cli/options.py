"""What several verbs are given, and what they make of it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zhiyin.errors import SpecError

if TYPE_CHECKING:
    from zhiyin.recipe import Recipe

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file (`zhiyin init` writes one).")
]
Part = Annotated[str, typer.Option(help="Which held-out events: 'test' or 'validation'.")]
Ks = Annotated[
    list[str] | None,
    typer.Option(
        "-k",
        "--ks",
        metavar="K",
        help="How many candidates are looked at; several times, or as 20,200; 10, 50 and 100 when left out.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table for a person.")]


def opened(path: Path) -> "Recipe":
    """The recipe at `path`. Raises `SpecError` as `Recipe.read` does."""
    from zhiyin.recipe import Recipe

    return Recipe.read(path)


def cutoffs(words: list[str] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """The k that metrics are asked for at, ascending, each once. Raises `SpecError` for what is no number above 0."""
    asked = [one.strip() for word in words or () for one in word.split(",")]
    for one in asked:
        if not one.isdecimal() or int(one) < 1:
            raise SpecError(
                f"'{one}'", where="-k", expected="whole numbers of at least 1, as in -k 10 -k 50 or --ks 10,50"
            )
    return tuple(sorted({int(one) for one in asked})) or default


def refuse_part(part: str) -> None:
    """Raises `SpecError` for held-out events that there are not."""
    if part not in ("test", "validation"):
        raise SpecError(f"--part {part}", expected="'test' or 'validation'")

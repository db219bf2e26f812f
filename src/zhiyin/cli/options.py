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
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table for a person.")]


def opened(path: Path) -> "Recipe":
    """The recipe at `path`. Raises `SpecError` as `Recipe.read` does."""
    from zhiyin.recipe import Recipe

    return Recipe.read(path)


def refuse_part(part: str) -> None:
    """Raises `SpecError` for held-out events that there are not."""
    if part not in ("test", "validation"):
        raise SpecError(f"--part {part}", expected="'test' or 'validation'")

"""The verb that asks a running service."""

import json
from typing import Annotated, Any

import typer
from rich.markup import escape

from zhiyin import client
from zhiyin.cli.options import Json
from zhiyin.cli.terminal import console
from zhiyin.errors import RequestError
from zhiyin.screen import candidates_table, missing_words, say


def ask(
    user: Annotated[str, typer.Argument(help="Whose candidates to ask for; leave it out for a new user.")] = "",
    url: Annotated[str, typer.Option(help="Where `zhiyin serve` listens.")] = "http://127.0.0.1:8000",
    event: Annotated[list[str] | None, typer.Option(help="An item just chosen; may be given several times.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many candidates.")] = 10,
    filter: Annotated[str, typer.Option(help="What every candidate must be: 'price < 20 and not adult'.")] = "",
    exclude: Annotated[list[str] | None, typer.Option(help="An item that must not come; several times.")] = None,
    seen: Annotated[bool, typer.Option("--seen", help="Items of the history may come, too.")] = False,
    profile: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Adds to the stored profile; several times.")
    ] = None,
    context: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="What context features read; several times.")
    ] = None,
    field: Annotated[list[str] | None, typer.Option(help="A field of the cards to show; all when left out.")] = None,
    diverse: Annotated[
        str, typer.Option(metavar="FIELD=WEIGHT", help="Differ in this field of the cards: 'category=0.5'.")
    ] = "",
    channel: Annotated[
        list[str] | None, typer.Option(help="A channel to ask; several times. The service's choice when left out.")
    ] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show which items of the history each is near to.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Ask a running service (`zhiyin serve`) for one user's candidates."""
    request = {
        "k": k,
        "hydrate": field or ["*"],
        **({"user_id": user} if user else {}),
        **({"events": [{"item_id": item} for item in event]} if event else {}),
        **({"filter": filter} if filter else {}),
        **({"exclude": exclude} if exclude else {}),
        **({"exclude_seen": False} if seen else {}),
        **({"profile": _named(profile, "--profile")} if profile else {}),
        **({"context": _named(context, "--context")} if context else {}),
        **({"diversity": _diversity(diverse)} if diverse else {}),
        **({"channels": channel} if channel else {}),
        **({"explain": True} if explain else {}),
    }
    answer = client.post(url.rstrip("/") + "/v1/retrieve", request)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        console.print(candidates_table(answer))
        say(
            console,
            f"release {answer['release']}, channel {answer['channel']}, history {answer['history']}, "
            f"{answer['took_ms']:.1f} ms",
            style="dim",
        )
        for words in missing_words(answer, k, channel or []):
            console.print(f"[yellow]{escape(words)}[/]")


def _named(words: list[str], option: str) -> dict[str, Any]:
    """NAME=VALUE each; a value that is JSON is what JSON says, any other is text."""
    named: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not name or not equals:
            raise RequestError(f"{word!r}", where=option, expected="NAME=VALUE")
        try:
            named[name] = json.loads(value)
        except ValueError:
            named[name] = value
    return named


def _diversity(word: str) -> dict[str, Any]:
    ((by, weight),) = _named([word], "--diverse").items()
    return {"by": by, "weight": weight}

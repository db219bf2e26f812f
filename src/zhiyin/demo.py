"""The whole path on MovieLens-100K, from the log to the answer over HTTP."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from zhiyin import client, pipeline
from zhiyin.data import datasets
from zhiyin.data.sources import Source
from zhiyin.errors import Failure
from zhiyin.recipe import Recipe
from zhiyin.screen import candidates_table, release_words, say, stored_words, training_bar
from zhiyin.service.app import create, running
from zhiyin.service.live import Live

RECIPE = """\
# MovieLens-100K: which film will a user rate next? Run any stage again: zhiyin fit recipe.toml, zhiyin evaluate …
home = "."

[data]
events = "{events}"
items = "{items}"
users = "{users}"
time_unit = "{time_unit}"

[features]
history_length = 50
user = [
    {{ use = "categorical:Categorical", name = "gender", dim = 4 }},
    {{ use = "categorical:Categorical", name = "occupation", dim = 8 }},
    {{ use = "numeric:Numeric", name = "age" }},
]
item = [{{ use = "bag:Bag", name = "genres", dim = 16 }}]

[split]
use = "splits:LeaveLastOut"

[model]
use = "youtube_dnn:YouTubeDNN"

[negatives]            # 1,682 films are few enough to compare with all of them
use = "negatives:WholeCatalogue"

[loss]
use = "losses:FullSoftmax"

[index]
use = "hnsw:HNSW"
"""

KNOWN = "196"
NEW_EVENTS = ("50", "172", "181")
ONE_MORE = "313"


def run(home: Path, *, data: Path | None, keep: bool, port: int, console: Console) -> None:
    """Run every stage and show what it made. Raises `Failure` when an answer is not what it must be."""

    def chapter(title: str) -> None:
        console.rule(f"[bold]{title}", align="left") if console.is_terminal else say(console, f"\n== {title}")

    chapter("1  the log")
    home.mkdir(parents=True, exist_ok=True)
    with console.status("fetching MovieLens-100K"):
        source = datasets.load("movielens-100k", data=data, cache=datasets.default_cache(), out=home / "data")
    recipe = _write_recipe(home, source)
    with console.status("preparing"):
        say(console, pipeline.prepare(recipe).words())

    chapter("2  two towers")
    with training_bar(console) as watch:
        fitted = pipeline.fit(recipe, watch)
    say(console, f"best at step {fitted.step:,}: validation recall@50 {fitted.recall:.4f}")

    chapter("3  how good are they?")
    with console.status("evaluating, exactly, over the whole catalogue"):
        report = pipeline.evaluate(recipe)
    console.print(report.table())
    say(console, report.words, style="dim")

    chapter("4  a release")
    with console.status("building, opening and proving"):
        release = pipeline.publish(recipe)
    say(console, release_words(release))

    chapter("5  served")
    served = pipeline.serving(recipe)
    try:
        with console.status("loading the store") as status:
            loaded = pipeline.load(
                recipe,
                served.store,
                lambda what, done, total: status.update(f"loading the store: {what} {done:,} of {total:,}"),
            )
        say(console, stored_words(loaded))
        with (
            Live(served.releases, served.store) as live,
            running(create(live, served.store, recipe.service, online=recipe.online), port=port) as url,
        ):
            _ask(url, console)
            if keep:
                _keep(url, console)
    finally:
        served.store.close()


def _write_recipe(home: Path, source: Source) -> Recipe:
    path = home / "recipe.toml"
    files = {"events": source.events, "items": source.items, "users": source.users}
    names = {name: "" if file is None else file.resolve().relative_to(home.resolve()) for name, file in files.items()}
    path.write_text(RECIPE.format(**names, time_unit=source.time_unit))
    return Recipe.read(path)


def _ask(url: str, console: Console) -> None:
    def ask(title: str, request: dict[str, Any]) -> dict[str, Any]:
        started = time.perf_counter()
        answer = client.post(url + "/v1/retrieve", {"hydrate": ["title", "genres"], **request})
        say(console, f"\n[bold]{escape(title)}[/]")
        console.print(candidates_table(answer))
        say(
            console,
            f"{answer['channel']} channel, history {answer['history']}, {answer['took_ms']:.1f} ms in the service, "
            f"{1e3 * (time.perf_counter() - started):.1f} ms over HTTP",
            style="dim",
        )
        return answer

    client.post(url + "/v1/retrieve", {"user_id": KNOWN, "k": 1})  # the first request warms caches
    ask(f"user {KNOWN}, known from the log", {"user_id": KNOWN, "k": 5})
    events = [{"item_id": item} for item in NEW_EVENTS]
    titles = [_title(url, item) for item in NEW_EVENTS]
    new = f"someone-new-{os.urandom(2).hex()}"  # also when the demo runs again
    client.post(url + "/v1/events", {"events": [{"user_id": new, **event} for event in events]})
    before = ask(f"a brand-new user who watched {' · '.join(titles)}", {"user_id": new, "k": 5})
    client.post(url + "/v1/events", {"events": [{"user_id": new, "item_id": ONE_MORE}]})
    after = ask(f"the same user, one event later: {_title(url, ONE_MORE)}", {"user_id": new, "k": 5})
    if _ids(before) == _ids(after):
        raise Failure("one more event did not change the answer", where="demo", expected="other candidates")
    console.print("\n[green]the answer changed with the event[/]")


def _keep(url: str, console: Console) -> None:
    say(console, f"\nserving at {url}  (docs at {url}/docs); ctrl-c stops it. Try:\n")
    body = json.dumps({"user_id": KNOWN, "k": 5, "hydrate": ["title"]})
    console.print(f"  curl -s {url}/v1/retrieve --json '{body}'\n", soft_wrap=True)
    wait: Callable[[float], None] = time.sleep
    try:
        while True:
            wait(3600)
    except KeyboardInterrupt:
        console.print("stopped")


def _title(url: str, item: str) -> str:
    card = client.item(url, item)["card"] or {}
    return str(card.get("title", item))


def _ids(answer: dict[str, Any]) -> list[str]:
    return [candidate["item_id"] for candidate in answer["candidates"]]

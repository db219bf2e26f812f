"""The command line: parse, call, print. Errors a person can mend exit with 2, failures with 1."""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from zhiyin import client
from zhiyin.errors import ReleaseError, RequestError, SpecError, StoreError, UserError, ZhiyinError
from zhiyin.screen import (
    Looked,
    candidates_table,
    comparison_table,
    data_sets_table,
    index_name,
    index_table,
    missing_words,
    profile_table,
    release_words,
    releases_table,
    say,
    screen,
    slices_table,
    stored_words,
    training_bar,
    trial_words,
    trials_table,
    tuned_words,
    tuning_table,
)

if TYPE_CHECKING:
    from zhiyin.recipe import Recipe
    from zhiyin.release import Releases

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="**zhiyin** – deep retrieval: an interaction log goes in, a live endpoint for candidate items comes out.\n\n"
    "Start with `zhiyin demo`. With your own files: `zhiyin init EVENTS`, then `zhiyin fit`, `evaluate`, `publish`, "
    "`serve`, each with the recipe that init wrote.",
)

console = screen()
"""Progress, tables and errors go to stderr; what a program may read goes to stdout."""

RecipePath = Annotated[
    Path, typer.Argument(metavar="RECIPE", help="The recipe, a TOML file (`zhiyin init` writes one).")
]
Part = Annotated[str, typer.Option(help="Which held-out events: 'test' or 'validation'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a program instead of a table for a person.")]


def main() -> None:
    """The entry point: runs the command and turns what can go wrong into a sentence and an exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin cost 20× on a busy machine …
    os.environ.setdefault(
        "GOMP_SPINCOUNT", "5000"
    )  # … and threads that sleep at once 1.7× on an idle one; before torch
    try:
        app()
    except ZhiyinError as error:
        _say(str(error))
        sys.exit(2 if isinstance(error, UserError) else 1)
    except OSError as error:
        _say(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        sys.exit(1)
    except Exception as error:
        _say(f"a bug: {type(error).__name__}: {error}. Please report it with what is in {_kept_traceback()}")
        sys.exit(1)


def _say(sentence: str) -> None:
    console.print(f"[bold red]zhiyin:[/] {escape(sentence)}", soft_wrap=True)


def _kept_traceback() -> str:
    with tempfile.NamedTemporaryFile("w", prefix="zhiyin-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    return file.name


@app.command(epilog="Example: `zhiyin demo --keep`")
def demo(
    home: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("movielens-100k"),
    data: Annotated[
        Path | None, typer.Option(help="Folder or archive with MovieLens-100K, instead of fetching it.")
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep serving at the end, and print a curl line to try.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port to serve on; 0 takes a free one.")] = 0,
) -> None:
    """See the whole path on MovieLens-100K: fetch, prepare, train, evaluate, publish, serve, ask. A few minutes."""
    from zhiyin.demo import run

    run(home, data=data, keep=keep, port=port, console=console)


@app.command(epilog="Example: `zhiyin init events.csv --items items.csv --users users.csv`")
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


@app.command(epilog="Example: `zhiyin data movielens-100k`")
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


@app.command(epilog="Example: `zhiyin prepare recipe.toml`")
def prepare(
    recipe: RecipePath,
    append: Annotated[
        Path | None, typer.Option(help="New files only (one, a folder, a pattern): add them to the prepared log.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read, check, sort and number your log. `fit` does it when it was not done; do it again when the files changed."""
    _prepare(_recipe(recipe), as_json, append)


@app.command(epilog="Example: `zhiyin fit recipe.toml`")
def fit(
    recipe: RecipePath,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget an earlier run instead of going on with it.")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Start from an earlier run's weights: its recipe (this one, after an append)."),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a step goes.")] = False,
    as_json: Json = False,
) -> None:
    """Train the two towers. An interrupted run goes on where it stood; the step that validates best is kept."""
    from zhiyin import pipeline

    read = _recipe(recipe)
    _ = read.plan  # refuse a wrong recipe before the log is read
    console.quiet = os.environ.get("RANK", "0") != "0"  # under torchrun one process talks
    if not (read.prepared / "manifest.json").exists() and "WORLD_SIZE" not in os.environ:
        _prepare(read, as_json=False)
    with training_bar(console) as watch:
        looked = Looked(watch)
        earlier = None if start is None else _recipe(start).run
        fitted = pipeline.fit(read, looked, fresh=fresh, profile=profile, start=earlier)
    if profile and looked.last is not None:
        console.print(profile_table(looked.last))
    if console.quiet:
        return
    measure = f"recall@{fitted.plan.training.measure}"
    if as_json:
        print(json.dumps({"step": fitted.step, f"validation {measure}": fitted.recall, "run": str(read.run)}))
    else:
        say(console, f"best at step {fitted.step:,}: validation {measure} {fitted.recall:.4f}   →  {read.run}")
        say(console, f"next: zhiyin evaluate {recipe}, or zhiyin publish {recipe}")


@app.command(epilog="Example: `zhiyin sweep recipe.toml --trials 30`")
def sweep(
    recipe: RecipePath,
    trials: Annotated[int, typer.Option(help="Trials in all, those of earlier calls included.", min=1)] = 20,
    minutes: Annotated[
        float, typer.Option(help="Stop after so long, to be gone on with; 0: when all trials are done.", min=0)
    ] = 0.0,
    sampler: Annotated[str, typer.Option(help="How values are drawn: 'tpe' or 'random'.")] = "tpe",
    seed: Annotated[int, typer.Option(help="Of the draws; trials train with the recipe's own.")] = 0,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the trials of earlier calls.")] = False,
    as_json: Json = False,
) -> None:
    """Search the ranges of `[sweep]` for better settings, judged on validation, and write the best as a recipe. A sweep
    that was interrupted goes on where it stood."""
    from zhiyin.sweep import sweep as search

    if sampler not in ("tpe", "random"):
        raise SpecError(f"--sampler {sampler}", expected="'tpe' or 'random'")
    read = _recipe(recipe)
    _ = read.plan
    with console.status("preparing") as status:
        watch, told = trial_words(console, status.update, trials)
        found = search(
            read,
            trials=trials,
            minutes=minutes,
            sampler="random" if sampler == "random" else "tpe",
            seed=seed,
            fresh=fresh,
            watch=watch,
            told=told,
        )
    if as_json:
        print(json.dumps({"recipe": found.recipe and str(found.recipe), "trials": [asdict(t) for t in found.ranked]}))
        return
    console.print(trials_table(found.ranked, f"recall@{read.plan.training.measure}"))
    if found.recipe:
        say(console, f"next: zhiyin fit {escape(str(found.recipe))}")
    if len(found.trials) < trials:
        say(console, f"{len(found.trials)} of {trials} trials: the same command goes on")


@app.command(epilog="Example: `zhiyin evaluate recipe.toml --report`")
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

    _refuse_part(part)
    read = _recipe(recipe)
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


@app.command(epilog="Example: `zhiyin compare recipe.toml faster.toml`")
def compare(
    first: RecipePath,
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="The recipe to compare with it.")],
    part: Part = "test",
    as_json: Json = False,
) -> None:
    """Say whether the second recipe's model is better than the first's, or only luckier. Both must be evaluated."""
    from zhiyin import pipeline

    _refuse_part(part)
    found = pipeline.compare(_recipe(first), _recipe(second), part=part)
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


@app.command(epilog="Example: `zhiyin tune recipe.toml --overlap 0.99 -k 500`")
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
    read, asked = _recipe(recipe), "" if release == "live" else release
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


@app.command(epilog="Example: `zhiyin publish recipe.toml`")
def publish(
    recipe: RecipePath,
    load: Annotated[
        bool, typer.Option(help="Also put the log's profiles, events and item cards into the store.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Turn the trained model into a release, check it against the model, and make it live."""
    from zhiyin import pipeline

    read = _recipe(recipe)
    pipeline.trained(read)
    loaded = _load(read) if load and not _forgets(read) else {}  # first: a release goes live with its cards there
    with console.status("building the release") as status:
        release = pipeline.publish(read, watch=lambda words: status.update(f"building the release: {escape(words)}"))
    if as_json:
        print(json.dumps({"release": release.id, "proof": release.manifest["proof"], "loaded": loaded}))
        return
    say(console, release_words(release))
    if loaded:
        say(console, stored_words(loaded))
    say(console, f"next: zhiyin serve {recipe}")


@app.command(epilog="Example: `zhiyin load recipe.toml`")
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
    read = _recipe(recipe)
    if _forgets(read):
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


@app.command(epilog="Example: `zhiyin releases recipe.toml --prune 3`")
def releases(
    recipe: RecipePath,
    prune: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Remove all but the newest N, the live one, those pinned or in use; and from the store the changes of "
            "items that all of these have absorbed.",
            min=0,
        ),
    ] = None,
    pin: Annotated[str, typer.Option(metavar="ID", help="Keep this one until it is unpinned.")] = "",
    unpin: Annotated[str, typer.Option(metavar="ID", help="No longer keep it.")] = "",
    as_json: Json = False,
) -> None:
    """List the releases: which is live, which are pinned or in use by a server, their size and metrics."""
    there = _recipe(recipe).releases
    if unpin:
        there.unpin(unpin)
    if pin:
        there.pin(pin)
    if prune is not None:
        _prune(_recipe(recipe), prune)
    told = _told(there)
    if as_json:
        kept = ("id", "live", "pinned", "in_use", "bytes", "created", "items", "proof", "metrics", "trouble")
        print(json.dumps([{name: one[name] for name in kept if name in one} for one in told]))
        return
    console.print(releases_table(told))


@app.command(epilog="Example: `zhiyin rollback recipe.toml`")
def rollback(
    recipe: RecipePath,
    to: Annotated[str, typer.Option(help="The release to make live; the one before the live one when left out.")] = "",
    as_json: Json = False,
) -> None:
    """Make an older release live again, after its checksums were verified. Servers follow within seconds."""
    there = _recipe(recipe).releases
    before = there.current()
    if to:
        there.point(to)
    live = to or there.roll_back()
    if as_json:
        print(json.dumps({"live": live, "was": before}))
    else:
        console.print(f"live: {live}   (was {before})")


@app.command(epilog="Example: `zhiyin serve recipe.toml --port 8000`")
def serve(
    recipe: RecipePath,
    host: Annotated[str, typer.Option(help="Address to listen on; the recipe's when left out.")] = "",
    port: Annotated[
        int | None,
        typer.Option(help="Port to listen on; the recipe's when left out, a free one when 0.", show_default=False),
    ] = None,
) -> None:
    """Serve the live release over HTTP, and follow when another one becomes live."""
    from dataclasses import replace

    from zhiyin.pipeline import serving
    from zhiyin.service.app import serve as run
    from zhiyin.service.live import Live

    read = _recipe(recipe)
    settings = replace(read.service, host=host or read.service.host)
    if port is not None:
        settings = replace(settings, port=port)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("zhiyin").setLevel(logging.INFO)
    served = serving(read)
    try:
        live = Live(served.releases, served.store, interval=served.releases.interval)
        run(live, served.store, settings, lambda words: say(console, words), read.online)
    finally:
        served.store.close()


@app.command(epilog="Example: `zhiyin consume recipe.toml`")
def consume(
    recipe: RecipePath,
    once: Annotated[bool, typer.Option("--once", help="End when no entry is left, instead of waiting.")] = False,
    as_json: Json = False,
) -> None:
    """Put the events that an application writes to a Redis stream into the store. Start as many as you need."""
    from dataclasses import asdict

    from zhiyin import pipeline

    read, stop = _recipe(recipe), threading.Event()
    logging.basicConfig(format="%(message)s")
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        counted = pipeline.consume(read, stop, once=once, say=lambda words: say(console, words))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if as_json:
        print(json.dumps(asdict(counted)))
    else:
        say(console, counted.words)


@app.command(epilog="Example: `zhiyin ask 42 -k 10`")
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


def _prune(recipe: "Recipe", keep: int) -> None:
    """Releases, and then what of the changes of items none of those that are left needs."""
    from zhiyin import pipeline

    for gone in recipe.releases.prune(keep):
        console.print(f"removed {gone}")
    if _forgets(recipe):
        return
    try:
        pruned = pipeline.prune_changes(recipe)
    except (ReleaseError, StoreError) as error:
        console.print(f"[yellow]the changes of items are all kept: {escape(str(error))}[/]")
        return
    if pruned.gone:
        console.print(f"removed {pruned.gone:,} changes of items from the store, {pruned.kept:,} are kept")


def _told(releases: "Releases") -> list[dict[str, Any]]:
    """What there is to say of each release; its trouble, where it cannot be opened."""
    live, pinned, told = releases.current(), releases.pinned(), []
    for id in releases.ids():
        try:
            said = releases.manifest(id)
        except ReleaseError as error:
            said = {"trouble": error.what}
        marks = {"live": id == live, "pinned": id in pinned, "in_use": releases.is_used(id)}
        told.append({**said, "id": id, **marks, "bytes": releases.size(id)})
    return told


def _prepare(recipe: "Recipe", as_json: bool, append: Path | None = None) -> None:
    from zhiyin import pipeline

    with console.status("preparing") as status:

        def tell(words: str) -> None:
            status.update(f"preparing: {words}")

        summary = pipeline.append(recipe, append, tell) if append else pipeline.prepare(recipe, tell)
    if as_json:
        print(json.dumps(asdict(summary)))
    else:
        say(console, summary.words())


def _load(recipe: "Recipe", *, replace_newer: bool = False) -> dict[str, int]:
    from zhiyin import pipeline

    columns = (TextColumn("loading {task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"))
    store = recipe.store.open()
    try:
        with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            tasks: dict[str, TaskID] = {}

            def watch(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bar.add_task(what, total=total)
                bar.update(tasks[what], completed=done)

            return pipeline.load(recipe, store, watch, replace_newer=replace_newer)
    finally:
        store.close()


def _forgets(recipe: "Recipe") -> bool:
    """Whether the recipe's store ends with the process."""
    from zhiyin.stores.memory import Memory

    return isinstance(recipe.store, Memory)


def _refuse_part(part: str) -> None:
    if part not in ("test", "validation"):
        raise SpecError(f"--part {part}", expected="'test' or 'validation'")


def _recipe(path: Path) -> "Recipe":
    from zhiyin.recipe import Recipe

    return Recipe.read(path)


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
    return Progress(SpinnerColumn(), TextColumn(f"{words} {{task.description}}"), TimeElapsedColumn(), console=console)


if __name__ == "__main__":
    main()

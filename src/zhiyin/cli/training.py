"""Verbs that train: once, or many times in search of better settings."""

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from zhiyin.cli.log import prepared
from zhiyin.cli.options import Json, RecipePath, opened
from zhiyin.cli.terminal import console
from zhiyin.errors import SpecError
from zhiyin.screen import Looked, profile_table, say, training_bar, trial_words, trials_table


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

    read = opened(recipe)
    _ = read.plan  # refuse a wrong recipe before the log is read
    console.quiet = os.environ.get("RANK", "0") != "0"  # under torchrun one process talks
    if not (read.prepared / "manifest.json").exists() and "WORLD_SIZE" not in os.environ:
        prepared(read, as_json=False)
    with training_bar(console) as watch:
        looked = Looked(watch)
        earlier = None if start is None else opened(start).run
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
    read = opened(recipe)
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
            found=lambda count: say(console, f"{count} trial{'s' * (count > 1)} of earlier calls"),
        )
    if as_json:
        print(json.dumps({"recipe": found.recipe and str(found.recipe), "trials": [asdict(t) for t in found.ranked]}))
        return
    console.print(trials_table(found.ranked, f"recall@{read.plan.training.measure}"))
    if found.recipe:
        say(console, f"next: zhiyin fit {escape(_from_here(found.recipe))}")
    if len(found.trials) < trials:
        say(console, f"{len(found.trials)} of {trials} trials: the same command goes on")


def _from_here(path: Path) -> str:
    """As it may be typed where the command was."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)

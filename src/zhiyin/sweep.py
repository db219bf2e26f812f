"""A search for a recipe's better settings, judged on validation: the test is not even given to it.

Each trial trains the recipe with other values from its declared ranges, all from one seed. Optuna draws them (Akiba et
al. 2019) and stops those that validate below the median of the others. A draw is a function of the seed, the trial's
number and the trials before it, and a finished trial is a line of a journal: so a sweep that was killed draws the same
again, and goes on with the checkpoint of the trial that was training.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhiyin import pipeline, spec
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import HeldOut, Split
from zhiyin.draws import Sampler, drawn, value_of
from zhiyin.errors import SpecError, TrainingError, ZhiyinError
from zhiyin.ranges import Choice, Range, Ranges, Value, put
from zhiyin.recipe import Recipe
from zhiyin.trials import Trial, TrialJournal, TrialRun

if TYPE_CHECKING:
    from zhiyin.learning.fit import Progress


FORMAT = 1
MARK = "# Written by `zhiyin sweep`"
_JUDGING = ("data", "features", "split", "model", "negatives", "loss", "optimizer", "training", "sweep")
"""The tables that a trial's result depends on."""

_HOMES = {"model.use": "zhiyin.models", "negatives.use": "zhiyin.learning", "loss.use": "zhiyin.learning"}
"""Where the classes are that these keys name."""


@dataclass(frozen=True, slots=True)
class Swept:
    """All finished trials in their order, and where the recipe of the best stands; None before one was complete."""

    trials: Sequence[Trial]
    recipe: Path | None

    @property
    def ranked(self) -> list[Trial]:
        """The complete ones, best first, then the pruned, then the failed."""
        order = {"complete": 0, "pruned": 1, "failed": 2}
        return sorted(self.trials, key=lambda one: (order[one.state], -(one.recall or 0.0), one.number))


Watch = Callable[[int, Mapping[str, Value], "Progress"], None]
"""Told a trial's number, its values, and where its training stands."""


def sweep(
    recipe: Recipe,
    *,
    trials: int = 20,
    minutes: float = 0.0,
    sampler: Sampler = "tpe",
    seed: int = 0,
    fresh: bool = False,
    watch: Watch = lambda number, values, progress: None,
    told: Callable[[Trial], None] = lambda trial: None,
    found: Callable[[int], None] = lambda trials: None,
) -> Swept:
    """Search until there are `trials` finished ones, those of earlier calls included, or for `minutes` of this call (0:
    without end); write the best one's recipe beside the recipe. Goes on with the sweep in the recipe's home, unless
    `fresh`. Prepares the data first if that was not done. `told` hears of each trial that is finished,
    and before the first `found` of how many earlier calls have finished, if any.

    A trial that fails (its loss is no longer finite, its settings do not go together, memory is too small) is one of
    the trials. Raises `SpecError` for what cannot be searched, and without Optuna; `TrainingError` where another sweep
    was begun, and where every trial failed.
    """
    _refuse_what_cannot_be(recipe, trials, minutes)
    if not (recipe.prepared / "manifest.json").exists():
        pipeline.prepare(recipe)
    if fresh:
        shutil.rmtree(recipe.home / "sweep", ignore_errors=True)
    search = Sweep(recipe, sampler, seed, watch, told)
    if search.trials:
        found(len(search.trials))
    search.go(trials, time.monotonic() + 60 * minutes if minutes else math.inf)
    return Swept(search.trials, search.written())


class _Stopped(Exception):  # noqa: N818 – no error
    """Raised out of a trial's training: it was pruned, or the time is up and the next call goes on with it."""


class Sweep:
    """One search: its ranges, its journal, and the trials that are finished."""

    def __init__(
        self, recipe: Recipe, sampler: Sampler, seed: int, watch: Watch, told: Callable[[Trial], None]
    ) -> None:
        self.recipe, self.sampler, self.seed, self.watch, self.told = recipe, sampler, seed, watch, told
        self.ranges: Ranges = recipe.ranges
        self.folder = recipe.home / "sweep"
        self.journal = TrialJournal(self.folder / "trials.jsonl", _identity(recipe, sampler, seed))
        self.trials = self.journal.read()

    def go(self, trials: int, deadline: float) -> None:
        """Finish what is left of so many trials, until the deadline."""
        data, split = pipeline.opened(self.recipe)
        blind = replace(split, test=HeldOut(split.test.starts[:0], split.test.stops[:0]))
        while len(self.trials) < trials and time.monotonic() < deadline:
            trial = self._trial(data, blind, deadline)
            if trial is None:
                return
            self.journal.write(trial)
            self.trials.append(trial)
            self.told(trial)
            shutil.rmtree(self._home(trial.values), ignore_errors=True)

    def written(self) -> Path | None:
        """The recipe of the best complete trial, written; None when there is none yet."""
        best = Swept(self.trials, None).ranked[:1]
        if not best:
            return None
        if best[0].state == "failed":
            raise TrainingError(
                f"all {len(self.trials)} trials failed; the first: {self.trials[0].words}", where="sweep"
            )
        if best[0].state != "complete":
            return None
        path = best_path(self.recipe)
        tables = put({name: table for name, table in self.recipe.tables.items() if name != "sweep"}, best[0].values)
        home = str(self.recipe.tables.get("home", self.recipe.path.stem))
        head = f"{MARK} from {self.recipe.path.name}: the best of {len(self.trials)} trials, number {best[0].number}, "
        measure = f"recall@{self.recipe.plan.training.measure}"
        text = Recipe.of({**tables, "home": f"{home}-best"}, path).text()
        path.write_text(f"{head}validation {measure} {best[0].recall:.4f}.\n{text}")
        return path

    def _trial(self, data: Prepared, split: Split, deadline: float) -> Trial | None:
        """The next trial, finished; None when the time is up before."""
        number = len(self.trials)
        asked = drawn(self.trials, self.ranges, self.sampler, self.seed)
        values = {path: value_of(one, asked.params[path]) for path, one in self.ranges.items()}
        known = next((one for one in self.trials if one.values == values), None)
        if known:
            return replace(known, number=number, seconds=0.0)
        run = TrialRun.open(self._home(values))
        every = self.recipe.plan.training.validate_every
        pruned = False

        def watch(progress: "Progress") -> None:
            nonlocal pruned
            self.watch(number, values, progress)
            if progress.validated:
                run.look(progress.best, max(1, round(progress.epoch / every)))
                asked.report(progress.best, len(run.looks))
                pruned = progress.step < progress.steps and asked.should_prune()
            if pruned or time.monotonic() > deadline:
                raise _Stopped

        trial = Trial(number, values, "complete", None)
        from zhiyin.learning.fit import fit

        try:
            one = of(self.recipe, values)
            fitted = fit(one.plan, data, split, one.schema.fit(data, split), run.folder, watch)
            trial = replace(trial, recall=fitted.recall)
        except _Stopped:
            if not pruned:
                return None
            trial = replace(trial, state="pruned", recall=run.looks[-1])
        except ZhiyinError as error:
            trial = replace(trial, state="failed", words=str(error))
        return replace(trial, looks=tuple(run.looks), seconds=round(run.seconds, 1))

    def _home(self, values: Mapping[str, Value]) -> Path:
        """A folder for the trial of these values, while it trains."""
        return self.folder / sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def of(recipe: Recipe, values: Mapping[str, Value]) -> Recipe:
    """The recipe with these values. Raises `SpecError` where they cannot be."""
    return Recipe.of(put({name: t for name, t in recipe.tables.items() if name != "sweep"}, values), recipe.path)


def best_path(recipe: Recipe) -> Path:
    """Where a sweep writes the best recipe."""
    return recipe.path.with_name(f"{recipe.path.stem}-best.toml")


def _identity(recipe: Recipe, sampler: Sampler, seed: int) -> dict[str, Any]:
    """What two calls must have in common to be one sweep."""
    tables = {name: recipe.tables.get(name, {}) for name in _JUDGING}
    return {"format": FORMAT, "sampler": sampler, "seed": seed, **tables}


def _refuse_what_cannot_be(recipe: Recipe, trials: int, minutes: float) -> None:
    if not recipe.ranges:
        raise SpecError(
            "the table [sweep] is missing",
            where=recipe.path.name,
            expected="what to search",
            remedy="Add it, with model.dim = [32, 64], say, or optimizer.lr = { low = 1e-4, high = 1e-2, log = true }.",
        )
    if trials < 1 or minutes < 0:
        raise SpecError(f"trials = {trials}, minutes = {minutes:g}", where="sweep", expected="trials ≥ 1, minutes ≥ 0")
    try:
        import optuna  # noqa: F401
    except ModuleNotFoundError as error:
        raise SpecError(
            f"a sweep needs the package '{error.name}', which is not installed",
            where="sweep",
            remedy="pip install 'zhiyin[sweep]'",
        ) from None
    path = best_path(recipe)
    if path.exists() and not path.read_text(encoding="utf-8-sig").startswith(MARK):
        raise SpecError(
            "this file would be replaced, and no sweep wrote it", where=str(path), remedy="Give it another name."
        )
    _ = recipe.plan
    for key, one in recipe.ranges.items():
        _refuse_impossible(recipe, key, one)


def _refuse_impossible(recipe: Recipe, key: str, one: Choice | Range) -> None:
    """Raises the first value's error when none of a range's values is possible by itself, and that of a `use` which
    names nothing: what cannot be by itself may be so together with another range's value, but not that."""
    first: SpecError | None = None
    for value in one.tried if key in _HOMES else ():
        spec.resolve(str(value), _HOMES[key], f"{recipe.path.name} sweep '{key}'")
    for value in one.tried:
        try:
            _ = of(recipe, {key: value}).plan
            return
        except SpecError as error:
            first = first or error
    if first:
        raise first.at(f"sweep '{key}':")

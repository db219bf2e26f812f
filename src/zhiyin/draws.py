"""The next trial of a sweep, drawn by Optuna: at random, or by TPE (Bergstra et al. 2011)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from zhiyin.ranges import Choice, Range, Ranges, Value
from zhiyin.trials import Trial

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random"]

RANDOM_FIRST = 8
"""Trials that TPE draws at random before it has seen enough."""

UNPRUNED = 4
"""Trials that run to their end before others are compared with them."""


def drawn(trials: Sequence[Trial], ranges: Ranges, sampler: Sampler, seed: int) -> "optuna.Trial":
    """The trial that comes after these, its parameters drawn: a function of what is given, and of nothing else."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mixed = (seed * 1_000_003 + len(trials)) % (1 << 32)
    samplers = optuna.samplers
    study = optuna.create_study(
        direction="maximize",
        sampler=samplers.TPESampler(n_startup_trials=RANDOM_FIRST, seed=mixed)
        if sampler == "tpe"
        else samplers.RandomSampler(seed=mixed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=UNPRUNED),
    )
    space = {path: _distribution(one) for path, one in ranges.items()}
    states = {
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for trial in trials:
        study.add_trial(
            optuna.trial.create_trial(
                state=states[trial.state],
                value=trial.recall if trial.state == "complete" else None,
                params={path: _parameter(one, trial.values[path]) for path, one in ranges.items()},
                distributions=space,
                intermediate_values=dict(enumerate(trial.looks, 1)),
            )
        )
    return study.ask(space)


def _distribution(one: Choice | Range) -> "optuna.distributions.BaseDistribution":
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(one, Choice):
        return CategoricalDistribution(range(len(one.values)))
    if one.step:
        return IntDistribution(0, math.floor((one.high - one.low) / one.step + 1e-9))
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), one.log)
    return FloatDistribution(one.low, one.high, log=one.log)


def value_of(one: Choice | Range, parameter: Any) -> Value:
    """What a drawn parameter stands for: a place in a choice, a number of steps, or a number, which is given four
    digits, as a person would write it."""
    if isinstance(one, Choice):
        return one.values[parameter]
    if one.step:
        value = float(f"{one.low + parameter * one.step:.10g}")
        return int(value) if one.whole else value
    return parameter if one.whole else min(max(float(f"{parameter:.4g}"), one.low), one.high)


def _parameter(one: Choice | Range, value: Value) -> Any:
    if isinstance(one, Choice):
        return one.values.index(value)
    return round((value - one.low) / one.step) if one.step else value

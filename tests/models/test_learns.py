"""Every model found in the package learns a world whose best answer is known, and nothing where nothing can be."""

import math
from functools import partial
from pathlib import Path

import pytest

from zhiyin import spec
from zhiyin.data import worlds
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.evaluation.report import evaluate
from zhiyin.features.schema import Schema
from zhiyin.learning.fit import Plan, Training, fit
from zhiyin.learning.losses import FullSoftmax
from zhiyin.learning.negatives import WholeCatalogue
from zhiyin.learning.optimizers import Optimizer
from zhiyin.models.base import ModelSpec

MODELS = spec.examples("zhiyin.models")
USERS, ITEMS, EVENTS, NOISE, HISTORY = 400, 16, 8, 0.3, 3
OF_SETS = ("pooling='mean'", "MIND(", "SINE(", "ComiRecSA(")
"""Models that read a history as a set, or answer with several of its events at once: they find the last event's
follower, but among those of the others."""


@pytest.fixture(scope="module")
def ring() -> Prepared:
    return worlds.ring(USERS, ITEMS, EVENTS, NOISE, seed=0)


@pytest.fixture(scope="module")
def noise() -> Prepared:
    return worlds.random_world(USERS, ITEMS, EVENTS, seed=0)


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_it_learns_a_walk_round_a_ring(model: ModelSpec, ring: Prepared, tmp_path: Path) -> None:
    """The last of three events says it all, and in half of the histories another one says something else."""
    best, recall = partial(worlds.ring_recall, ITEMS, NOISE), recalls(model, ring, tmp_path)
    assert recall[4] >= 0.85 * best(4)
    if not any(name in repr(model) for name in OF_SETS):
        assert recall[1] >= 0.85 * best(1)
    for k, found in recall.items():
        assert found <= best(k) + noise_of(best(k)), "better than an oracle: it has seen the answer"


@pytest.mark.parametrize("model", MODELS, ids=repr)
def test_it_does_not_learn_what_is_not_there(model: ModelSpec, noise: Prepared, tmp_path: Path) -> None:
    for k, found in recalls(model, noise, tmp_path).items():
        assert abs(found - k / ITEMS) <= noise_of(k / ITEMS)


def recalls(model: ModelSpec, data: Prepared, folder: Path) -> dict[int, float]:
    """k → recall@k of the held-out last events, seen items kept, after one plan of training for all."""
    split = LeaveLastOut().split(data.events, data.clock)
    training = Training(epochs=EPOCHS, batch_size=128, validate_every=EPOCHS, device="cpu", measure=4)
    plan = Plan(model, WholeCatalogue(), FullSoftmax(), Optimizer(lr=0.01, table_lr=0.02), training)
    fitted = fit(plan, data, split, Schema(history_length=HISTORY).fit(data, split), folder)
    report = evaluate({"model": fitted.scorer(data, "cpu")}, data, split.test, ks=(1, 4), remove_seen=False)
    return {k: report.value("model", f"recall@{k}") for k in (1, 4)}


EPOCHS = 6


def noise_of(share: float) -> float:
    """Four standard deviations of a share found among the users."""
    return 4 * math.sqrt(share * (1 - share) / USERS)

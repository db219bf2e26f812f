"""Each loss against a slow one in plain numpy, written from its formula."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.errors import SpecError
from zhiyin.learning.base import Negatives, Scores
from zhiyin.learning.losses import BPR, EXAMPLES, CorrectedLogQ, FullSoftmax, Hinge, SampledSoftmax, score

Plain = dict[str, Any]


def random_scores(seed: int, n: int = 5, m: int = 9) -> Scores:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Scores(draw(n) * 2, draw(n, m) * 2, -draw(n).abs(), -draw(m).abs(), draw(n, m) > 1)


def real(scores: Scores, i: int) -> list[int]:
    return [j for j in range(scores.negative.shape[1]) if not scores.accidental[i, j]]


def slow_sampled_softmax(s: Scores, i: int) -> float:
    top = math.exp(s.positive[i] - s.positive_logq[i])
    return -math.log(top / (top + sum(math.exp(s.negative[i, j] - s.negative_logq[j]) for j in real(s, i))))


def slow_full_softmax(s: Scores, i: int) -> float:
    top = math.exp(s.positive[i])
    return -math.log(top / (top + sum(math.exp(s.negative[i, j]) for j in real(s, i))))


def slow_corrected(s: Scores, i: int) -> float:
    q = {j: math.exp(s.negative_logq[j]) / (s.negative.shape[1] - math.exp(s.positive_logq[i])) for j in real(s, i)}
    total = sum(math.exp(s.negative[i, j]) / q[j] for j in q)
    chance = math.exp(s.positive[i]) / (math.exp(s.positive[i]) + total / len(q))
    return -(1 - chance) * (float(s.positive[i]) - math.log(total))


def slow_bpr(s: Scores, i: int) -> float:
    return float(np.mean([-math.log(1 / (1 + math.exp(-(s.positive[i] - s.negative[i, j])))) for j in real(s, i)]))


def slow_hinge(s: Scores, i: int) -> float:
    return float(np.mean([max(0.0, 0.3 - float(s.positive[i]) + float(s.negative[i, j])) for j in real(s, i)]))


ORACLES: list[tuple[Any, Callable[[Scores, int], float]]] = [
    (SampledSoftmax(), slow_sampled_softmax),
    (FullSoftmax(), slow_full_softmax),
    (CorrectedLogQ(), slow_corrected),
    (BPR(), slow_bpr),
    (Hinge(0.3), slow_hinge),
]


def test_every_loss_has_an_oracle() -> None:
    assert {type(loss) for loss, _ in ORACLES} == {type(loss) for loss in EXAMPLES}


@pytest.mark.parametrize(("loss", "oracle"), ORACLES, ids=lambda x: type(x).__name__)
@given(seed=st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_loss_is_its_formula(loss: Any, oracle: Callable[[Scores, int], float], seed: int) -> None:
    scores = random_scores(seed)
    wanted = [oracle(scores, i) if real(scores, i) else None for i in range(5)]
    for found, expected in zip(loss(scores).tolist(), wanted, strict=True):
        if expected is not None:
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_gradients(loss: Any) -> None:
    scores = random_scores(3)

    def of(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = loss(
            Scores(positive, negative, scores.positive_logq, scores.negative_logq, scores.accidental)
        )
        return losses.sum()

    if isinstance(loss, CorrectedLogQ):  # its weight is a stopped gradient: descend, if not by the numeric slope
        positive = scores.positive.clone().requires_grad_()
        (slope,) = torch.autograd.grad(of(positive, scores.negative), positive)
        assert (slope < 0).all()
        assert (slope >= -1).all()
        return
    inputs = (scores.positive.clone().requires_grad_(), scores.negative.clone().requires_grad_())
    assert torch.autograd.gradcheck(of, inputs)


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_an_accidental_hit_takes_no_part(loss: Any) -> None:
    scores = random_scores(1)
    shifted = scores.negative.masked_fill(scores.accidental, 1e4).requires_grad_()
    changed = Scores(scores.positive, shifted, scores.positive_logq, scores.negative_logq, scores.accidental)
    if isinstance(loss, CorrectedLogQ | SampledSoftmax | FullSoftmax | BPR | Hinge):
        torch.testing.assert_close(loss(changed), loss(scores))
    loss(changed).sum().backward()
    assert shifted.grad is not None
    assert (shifted.grad[scores.accidental] == 0).all()
    assert torch.isfinite(shifted.grad).all()


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_without_any_negative_left_the_loss_is_finite(loss: Any) -> None:
    scores = random_scores(2)
    positive, negative = scores.positive.clone().requires_grad_(), scores.negative.clone().requires_grad_()
    alone = Scores(positive, negative, scores.positive_logq, scores.negative_logq, torch.ones_like(scores.accidental))
    losses = loss(alone)
    torch.testing.assert_close(losses, torch.zeros_like(losses))
    losses.sum().backward()
    assert torch.isfinite(positive.grad).all()  # type: ignore[arg-type]
    assert torch.isfinite(negative.grad).all()  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_large_scores_stay_finite(loss: Any) -> None:
    scores = random_scores(4)
    large = Scores(
        scores.positive.float() * 1e3,
        scores.negative.float() * 1e3,
        scores.positive_logq.float(),
        scores.negative_logq.float(),
        scores.accidental,
    )
    assert torch.isfinite(loss(large)).all()


def test_sampled_softmax_over_everything_is_full_softmax() -> None:
    scores = random_scores(5)
    none = Scores(
        scores.positive,
        scores.negative,
        torch.zeros_like(scores.positive_logq),
        torch.zeros_like(scores.negative_logq),
        scores.accidental,
    )
    torch.testing.assert_close(SampledSoftmax()(none), FullSoftmax()(none))


def test_score_is_inner_products_and_finds_accidental_hits() -> None:
    users, positives, negatives = torch.randn(3, 4), torch.randn(3, 4), torch.randn(5, 4)
    rows, drawn = torch.tensor([7, 1, 2]), torch.tensor([1, 9, 7, 7, 3])
    found = score(users, positives, negatives, rows, Negatives(drawn, torch.zeros(5), torch.zeros(3)))
    for i in range(3):
        assert float(found.positive[i]) == pytest.approx(float(users[i] @ positives[i]), rel=1e-5)
        for j in range(5):
            assert float(found.negative[i, j]) == pytest.approx(float(users[i] @ negatives[j]), rel=1e-4, abs=1e-6)
            assert bool(found.accidental[i, j]) == (int(rows[i]) == int(drawn[j]))


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(SpecError, match=r"\.margin: .*expected a number above 0"):
        Hinge(margin)

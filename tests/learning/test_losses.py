"""Each loss against a slow one in plain numpy, written from its formula."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from zhiyin.errors import SpecError
from zhiyin.learning.base import Scores
from zhiyin.learning.losses import BCE, BPR, EXAMPLES, GBCE, CorrectedLogQ, FullSoftmax, Hinge, SampledSoftmax

Plain = dict[str, Any]


def random_scores(seed: int, n: int = 5, m: int = 9, share: float = 0.2, interests: int = 0) -> Scores:
    """Five users and nine negatives; `share` of the pairs are no negatives. `interests`: how many vectors of each user
    the negatives are compared with, none to compare them with the user's own."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    hits = torch.nonzero(torch.rand(n, m, generator=generator) < share).T
    users, positives, negatives, own = draw(n, 4), draw(n, 4), draw(m, 4), draw(n, 2, 4)
    own_real = torch.rand(n, 2, generator=generator) >= share
    scores = Scores(users, positives, negatives, -draw(n).abs(), -draw(m).abs(), hits, own, own_real, catalogue_size=40)
    return replace(scores, interests=draw(n, interests, 4)) if interests else scores


def best(s: Scores, i: int, negative: Tensor) -> float:
    """The score of a negative: that of the user, or of the best of the interests."""
    asked = [s.users[i]] if s.interests is None else list(s.interests[i])
    return max(float(one @ negative) for one in asked)


def terms(scores: Scores, i: int) -> list[tuple[float, float]]:
    """(score, logq) of each negative of an example, its own ones uncorrected."""
    none = {j for example, j in scores.hits.T.tolist() if example == i}
    shared = [
        (best(scores, i, scores.negatives[j]), float(scores.negative_logq[j]))
        for j in range(len(scores.negatives))
        if j not in none
    ]
    assert scores.own is not None
    assert scores.own_real is not None
    return shared + [
        (best(scores, i, scores.own[i, j]), 0.0) for j in range(scores.own.shape[1]) if scores.own_real[i, j]
    ]


def slow_sampled_softmax(s: Scores, i: int) -> float:
    top = math.exp(s.positive[i] - s.positive_logq[i])
    return -math.log(top / (top + sum(math.exp(score - logq) for score, logq in terms(s, i))))


def slow_full_softmax(s: Scores, i: int) -> float:
    top = math.exp(s.positive[i])
    return -math.log(top / (top + sum(math.exp(score) for score, _ in terms(s, i))))


def slow_bare_softmax(s: Scores, i: int) -> float:
    return slow_full_softmax(s, i)


def slow_smoothed(s: Scores, i: int) -> float:
    """The cross entropy with 0.9 on the positive and 0.1 over the catalogue, whose mean score is told by 1/q."""
    weights = (-s.negative_logq).exp()
    each = torch.tensor([best(s, i, negative) for negative in s.negatives], dtype=torch.float64)
    mean = float((weights * each).sum() / weights.sum())
    positive = float(s.positive[i] - s.positive_logq[i])
    whole = slow_sampled_softmax(s, i) + positive
    return whole - 0.9 * positive - 0.1 * mean


def slow_corrected(s: Scores, i: int) -> float:
    left = len(s.negatives) - math.exp(s.positive_logq[i])
    total = sum(math.exp(score) / (math.exp(logq) / left) for score, logq in terms(s, i))
    chance = math.exp(s.positive[i]) / (math.exp(s.positive[i]) + total / len(terms(s, i)))
    return -(1 - chance) * (float(s.positive[i]) - math.log(total))


def slow_bpr(s: Scores, i: int) -> float:
    return float(np.mean([-math.log(1 / (1 + math.exp(-(s.positive[i] - score)))) for score, _ in terms(s, i)]))


def slow_hinge(s: Scores, i: int) -> float:
    return float(np.mean([max(0.0, 0.3 - float(s.positive[i]) + score) for score, _ in terms(s, i)]))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slow_gbce(s: Scores, i: int, t: float = 0.75) -> float:
    k = len(terms(s, i))
    alpha = k / (40 - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    against = sum(math.log(1 - sigmoid(score)) for score, _ in terms(s, i))
    return -(beta * math.log(sigmoid(float(s.positive[i]))) + against) / (k + 1)


def slow_bce(s: Scores, i: int) -> float:
    return slow_gbce(s, i, t=0.0)


ORACLES: list[tuple[Any, Callable[[Scores, int], float]]] = [
    (SampledSoftmax(), slow_sampled_softmax),
    (SampledSoftmax(logq=False), slow_bare_softmax),
    (SampledSoftmax(smoothing=0.1), slow_smoothed),
    (FullSoftmax(), slow_full_softmax),
    (CorrectedLogQ(), slow_corrected),
    (BPR(), slow_bpr),
    (GBCE(), slow_gbce),
    (GBCE(calibration=0.2), lambda s, i: slow_gbce(s, i, 0.2)),
    (BCE(), slow_bce),
    (Hinge(0.3), slow_hinge),
]


def test_every_loss_has_an_oracle() -> None:
    assert {type(loss) for loss, _ in ORACLES} == {type(loss) for loss in EXAMPLES}


@pytest.mark.parametrize(("loss", "oracle"), ORACLES, ids=lambda x: type(x).__name__)
@given(seed=st.integers(0, 10_000), interests=st.sampled_from([0, 1, 3]))
@settings(max_examples=25, deadline=None)
def test_a_loss_is_its_formula(loss: Any, oracle: Callable[[Scores, int], float], seed: int, interests: int) -> None:
    scores = random_scores(seed, interests=interests)
    wanted = [oracle(scores, i) if terms(scores, i) else None for i in range(5)]
    for found, expected in zip(loss(scores).tolist(), wanted, strict=True):
        if expected is not None:
            assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_gradients(loss: Any) -> None:
    scores = random_scores(3)

    def total(users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        changed = replace(scores, users=users, positives=positives, negatives=negatives)
        losses: Tensor = loss(changed)
        return losses.sum()

    inputs = [part.clone().requires_grad_() for part in (scores.users, scores.positives, scores.negatives)]
    if isinstance(loss, CorrectedLogQ):  # its weight is a stopped gradient: descend, if not by the numeric slope
        (slope,) = torch.autograd.grad(total(*inputs), inputs[1])
        downhill = -(slope * scores.users).sum(1)  # along the user's own vector the positive's score rises
        assert (downhill > 0).all()
        assert (downhill <= scores.users.square().sum(1)).all()
        return
    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("loss", [one for one in EXAMPLES if not isinstance(one, CorrectedLogQ)], ids=repr)
def test_gradients_where_interests_compete(loss: Any) -> None:
    scores = random_scores(4, interests=3)

    def total(interests: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        changed = replace(scores, interests=interests, positives=positives, negatives=negatives)
        losses: Tensor = loss(changed)
        return losses.sum()

    assert scores.interests is not None
    inputs = [part.clone().requires_grad_() for part in (scores.interests, scores.positives, scores.negatives)]
    assert torch.autograd.gradcheck(total, inputs)


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_a_pair_that_is_no_negative_takes_no_part(loss: Any) -> None:
    scores = random_scores(1)
    lost = 3
    scores = replace(scores, hits=torch.cat([torch.arange(5)[None], torch.full((1, 5), lost)]), own=None, own_real=None)
    negatives = scores.negatives.clone()
    negatives[lost] *= 1e3
    negatives.requires_grad_()
    changed = loss(replace(scores, negatives=negatives))
    torch.testing.assert_close(changed, loss(scores))
    changed.sum().backward()
    assert negatives.grad is not None
    assert (negatives.grad[lost] == 0).all()
    assert torch.isfinite(negatives.grad).all()
    assert (negatives.grad != 0).any()


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_without_any_negative_left_the_loss_is_finite(loss: Any) -> None:
    scores = random_scores(2, share=2.0)
    parts = {name: getattr(scores, name).clone().requires_grad_() for name in ("users", "positives", "negatives")}
    losses = loss(replace(scores, **parts))
    if isinstance(loss, BCE | GBCE):  # the positive alone
        assert (losses > 0).all()
    else:
        torch.testing.assert_close(losses, torch.zeros_like(losses))
    losses.sum().backward()
    for part in parts.values():
        assert part.grad is None or torch.isfinite(part.grad).all()


@pytest.mark.parametrize("loss", EXAMPLES, ids=repr)
def test_large_scores_stay_finite(loss: Any) -> None:
    scores = random_scores(4)
    large: dict[str, Any] = {
        name: getattr(scores, name).float() * 100 for name in ("users", "positives", "negatives", "own")
    }
    large |= {name: getattr(scores, name).float() for name in ("positive_logq", "negative_logq")}
    assert torch.isfinite(loss(replace(scores, **large))).all()


@pytest.mark.parametrize("scale", [0.1, 1.0, 3.0, 30.0])
@pytest.mark.parametrize("rare", [0.0, 50.0])
def test_a_log_sum_is_its_formula_at_every_size_of_scores(scale: float, rare: float) -> None:
    """Small scores need no shift and large ones do; what one way gives, and its slopes, the plain formula gives."""
    scores = random_scores(6)
    logq = scores.negative_logq - rare * torch.arange(9.0) / 8
    users, negatives = ((part * scale).float().requires_grad_() for part in (scores.users, scores.negatives))
    found = replace(scores, users=users, negatives=negatives, own=None).log_sum(logq.float())
    exact = [part.detach().double().requires_grad_() for part in (users, negatives)]
    hidden = torch.zeros(5, 9, dtype=torch.bool).index_put(tuple(scores.hits), torch.tensor(True))
    wanted = (exact[0] @ exact[1].T - logq.float()).masked_fill(hidden, -torch.inf).logsumexp(1)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    slopes = torch.autograd.grad(found.sum(), (users, negatives))
    for slope, other in zip(slopes, torch.autograd.grad(wanted.sum(), exact), strict=True):
        torch.testing.assert_close(slope.double(), other, rtol=1e-4, atol=1e-5 * scale)


def test_sampled_softmax_over_everything_is_full_softmax() -> None:
    scores = random_scores(5)
    none: dict[str, Any] = {
        name: torch.zeros_like(getattr(scores, name)) for name in ("positive_logq", "negative_logq")
    }
    torch.testing.assert_close(SampledSoftmax()(replace(scores, **none)), FullSoftmax()(scores))


def test_scores_are_inner_products_without_the_pairs_that_are_none() -> None:
    scores = random_scores(6)
    for i in range(5):
        assert float(scores.positive[i]) == pytest.approx(float(scores.users[i] @ scores.positives[i]))
        assert int(scores.real[i]) == len(terms(scores, i))
        found = [score for score in scores.negative[i].tolist() if score > -1e20]
        assert found == pytest.approx([score for score, _ in terms(scores, i)])


@pytest.mark.parametrize("margin", [0.0, -1.0, float("nan"), float("inf")])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(SpecError, match=r"\.margin: .*expected a number above 0"):
        Hinge(margin)

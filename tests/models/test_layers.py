"""Layers whose backward pass is written out, against autograd's own and against numeric slopes."""

import torch

from zhiyin.models.base import Runs
from zhiyin.models.layers import MLP, HistoryPooling, normalized


def test_the_slope_of_unit_vectors() -> None:
    vectors = torch.randn(3, 2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(normalized, (vectors,))


def test_a_zero_vector_stays_zero_and_its_slope_is_finite() -> None:
    vectors = torch.zeros(2, 4, requires_grad=True)
    found = normalized(vectors)
    assert (found == 0).all()
    (slope,) = torch.autograd.grad(found.sum(), vectors)
    assert torch.isfinite(slope).all()


def test_an_mlp_of_several_vectors_each_is_that_of_each_alone() -> None:
    torch.manual_seed(0)
    mlp = MLP(6, (5, 4), 3)
    inputs = torch.randn(7, 2, 6)
    found, alone = mlp(inputs), torch.stack([mlp(inputs[:, 0]), mlp(inputs[:, 1])], dim=1)
    torch.testing.assert_close(found, alone)
    slopes = [torch.autograd.grad(one.square().sum(), list(mlp.parameters())) for one in (found, alone)]
    for slope, other in zip(*slopes, strict=True):
        torch.testing.assert_close(slope, other)


def test_weights_of_the_log_multiply_those_of_the_places() -> None:
    """By hand: after two events of weights 1 and 3, places counting 1 and e (the newest); an event of none is none."""
    pooling = HistoryPooling("positions", 2)
    assert pooling.positions is not None
    with torch.no_grad():
        pooling.positions.copy_(torch.tensor([1.0, 0.0]))
    vectors = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [5.0, 5.0]]])
    runs = Runs(torch.tensor([[4, 7, 9]]), torch.tensor([[0, 1, 2]]), torch.arange(3), {}, {}, 2)
    e = torch.e
    for weights, last in (([1.0, 3.0, 2.0], [1 / (1 + 3 * e), 3 * e / (1 + 3 * e)]), ([2.0, 0.0, 1.0], [1.0, 0.0])):
        found = pooling.over_runs(vectors, runs, torch.tensor([weights]))
        torch.testing.assert_close(found, torch.tensor([[0.0, 0.0], [1.0, 0.0], last]))


def test_an_event_that_is_asked_for_is_not_in_its_own_mean() -> None:
    """By hand, with weights of the log 1, 2, 3; an event that is not among those of the run takes nothing away."""
    pooling = HistoryPooling("mean", 3)
    vectors = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]])
    own, places = torch.tensor([[0, 2, -1]]), torch.tensor([[3, 3, 3]])
    runs = Runs(torch.tensor([[4, 7, 9]]), places, torch.arange(3), {}, {}, 3, own)
    third = 1 / 3
    plain = torch.tensor([[0.0, 0.5, 0.5], [0.5, 0.5, 0.0], [third, third, third]])
    torch.testing.assert_close(pooling.over_runs(vectors, runs), plain)
    weighed = torch.tensor([[0.0, 0.4, 0.6], [third, 2 * third, 0.0], [1 / 6, third, 0.5]])
    torch.testing.assert_close(pooling.over_runs(vectors, runs, torch.tensor([[1.0, 2.0, 3.0]])), weighed)

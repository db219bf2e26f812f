"""Routing against slow, plain versions written from the papers, one user, one event, one interest at a time."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.models.base import Queries, Runs
from zhiyin.models.comirec_dr import PART, ComiRecDR, RoutedByPlace, route_by_place
from zhiyin.models.mind import MIND, Routed
from zhiyin.models.routing import interests_alive, route, squash
from zhiyin.models.windows import Band

Array = NDArray[np.float64]
LENGTH, DIM, CATALOGUE = 9, 5, 40


def softmax(values: Array) -> Array:
    shares: Array = np.exp(values - values.max())
    return np.asarray(shares / shares.sum())


def squashed(vector: Array) -> Array:
    norm = float(np.linalg.norm(vector))
    return vector if norm == 0 else norm**2 / (1 + norm**2) * vector / norm


def routed(votes: list[list[Array]], logits: Array, weights: Array, rounds: int) -> Array:
    """[h, d]: votes[i][j] is what behaviour i tells interest j; logits [i, j], −inf for an interest that is not there;
    weights [i]."""
    b = logits.copy()
    interests = np.zeros((b.shape[1], len(votes[0][0]) if votes else DIM))
    for _ in range(rounds):
        w = np.array([softmax(row) for row in b])
        for j in range(b.shape[1]):
            total = np.zeros(interests.shape[1])
            for i, vote in enumerate(votes):
                total += weights[i] * w[i, j] * vote[j]
            interests[j] = squashed(total)
        for i, vote in enumerate(votes):
            for j in range(b.shape[1]):
                b[i, j] += interests[j] @ vote[j]
    return interests


def histories(seed: int = 0) -> torch.Tensor:
    """[6, LENGTH] with 0, 1, 3, 4, 8 and LENGTH events."""
    rows = torch.randint(CATALOGUE, (6, LENGTH), generator=torch.Generator().manual_seed(seed))
    for at, events in enumerate((0, 1, 3, 4, 8, LENGTH)):
        rows[at, : LENGTH - events] = UNKNOWN
    return rows


def band(history: torch.Tensor) -> Band:
    return Band.of_queries(Queries(history, {}), LENGTH)


@torch.no_grad()
@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("rounds", [1, 3])
def test_mind_routes_as_the_paper_says(adaptive: bool, rounds: int) -> None:
    torch.manual_seed(1)
    spec = MIND(dim=DIM, interests=3, rounds=rounds, adaptive=adaptive)
    layer = Routed(spec, LENGTH).double()
    torch.nn.init.normal_(layer.map.weight)
    assert layer.recency is not None
    torch.nn.init.normal_(layer.recency)
    history, events = histories(), torch.randn(6, LENGTH, DIM, dtype=torch.float64)
    found = layer(events, band(history))
    for user in range(6):
        real = np.flatnonzero(history[user].numpy() >= 0)
        most = max(1, min(3, math.floor(math.log2(max(1, len(real)))))) if adaptive else 3
        places = [LENGTH - 1 - int(i) for i in real]
        votes = [[layer.map.weight.numpy() @ events[user, i].numpy()] * most for i in real]
        wanted = routed(
            votes,
            layer.logits.numpy()[places, :most].reshape(len(real), most),
            np.exp(layer.recency.numpy()[places, 0]),
            rounds,
        )
        np.testing.assert_allclose(found.vectors[user, :most].numpy(), wanted, atol=1e-12)
        if adaptive:
            assert found.alive[user].tolist() == [j < most for j in range(3)]
            assert (found.vectors[user, most:] == 0).all()


@torch.no_grad()
@pytest.mark.parametrize("rounds", [1, 3])
def test_comirec_routes_by_a_map_for_each_place_and_interest(rounds: int) -> None:
    torch.manual_seed(2)
    layer = RoutedByPlace(ComiRecDR(dim=DIM, interests=3, rounds=rounds), LENGTH).double()
    torch.nn.init.normal_(layer.maps, std=0.7)
    history, events = histories(), torch.randn(6, LENGTH, DIM, dtype=torch.float64)
    found = layer(events, band(history)).vectors
    maps = layer.maps.numpy().reshape(LENGTH, DIM, 3, DIM)
    for user in range(6):
        real = np.flatnonzero(history[user].numpy() >= 0)
        votes = [[events[user, i].numpy() @ maps[i, :, j] for j in range(3)] for i in real]
        wanted = routed(votes, np.zeros((len(real), 3)), np.ones(len(real)), rounds)
        np.testing.assert_allclose(found[user].numpy(), wanted, atol=1e-12)


def test_gradients_come_through_the_last_round_alone() -> None:
    """The couplings of the last round count as constants: the slope is that of squash(Σ w e) with w written down."""
    torch.manual_seed(3)
    votes = torch.randn(2, 7, DIM, dtype=torch.float64)
    weights, logits = torch.rand(2, 1, 7, dtype=torch.float64), torch.randn(2, 1, 3, 7, dtype=torch.float64)
    alive = torch.tensor([[[True, True, True]], [[True, True, False]]])
    slopes = []
    for constant in (False, True):
        asked, counted = votes.clone().requires_grad_(), weights.clone().requires_grad_()
        if constant:
            b = logits.clone().masked_fill(~alive[..., None], -torch.inf)
            for _ in range(2):
                u = squash(torch.einsum("rthp,rtp,rpd->rthd", b.softmax(2), weights, votes))
                b = b + torch.einsum("rthd,rpd->rthp", u, votes)
            found = squash(torch.einsum("rthp,rtp,rpd->rthd", b.softmax(2), counted, asked))
        else:
            found = route(asked, counted, logits, alive, 3)
        (found * torch.arange(1, DIM + 1)).sum().backward()  # type: ignore[no-untyped-call]
        slopes.append((found.detach(), asked.grad, counted.grad))
    for mine, wanted in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, wanted)


def test_comirecs_gradients_come_through_the_last_round_alone() -> None:
    torch.manual_seed(4)
    votes, real = torch.randn(6, 3, 2, DIM, dtype=torch.float64), torch.rand(6, 3) > 0.3
    there = real[..., None].double()
    b = torch.zeros(6, 3, 2, dtype=torch.float64)
    for _ in range(2):
        u = squash(((b.softmax(2) * there)[..., None] * votes).sum(0))
        b = b + (votes * u).sum(-1)
    slopes = []
    for routing in (
        lambda v: route_by_place(v, real, 3),
        lambda v: squash(((b.softmax(2) * there)[..., None] * v).sum(0)),
    ):
        asked = votes.clone().requires_grad_()
        loss: torch.Tensor = (routing(asked) * torch.arange(1, DIM + 1)).sum()  # type: ignore[no-untyped-call]
        loss.backward()  # type: ignore[no-untyped-call]
        slopes.append(asked.grad)
    torch.testing.assert_close(*slopes)


def test_interests_grow_with_the_logarithm_of_the_history() -> None:
    counts = torch.arange(200)[:, None]
    for most in (1, 2, 4, 7):
        found = interests_alive(counts, most).sum(-1)[:, 0].tolist()
        assert found == [max(1, min(most, math.floor(math.log2(max(1, n))))) for n in range(200)]


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=6))
def test_squash_keeps_the_direction_and_shortens(values: list[float]) -> None:
    vector = torch.tensor(values, dtype=torch.float64)
    short = squash(vector)
    np.testing.assert_allclose(short.numpy(), squashed(vector.numpy()), rtol=1e-9, atol=1e-30)
    assert float(short.norm()) < 1


def test_an_empty_history_has_finite_slopes() -> None:
    torch.manual_seed(5)
    nothing = torch.full((2, LENGTH), UNKNOWN)
    for layer in (Routed(MIND(dim=DIM), LENGTH), RoutedByPlace(ComiRecDR(dim=DIM), LENGTH)):
        events = torch.zeros(2, LENGTH, DIM, requires_grad=True)
        layer(events, band(nothing)).vectors.sum().backward()
        assert events.grad is not None
        for slope in (events.grad, *(p.grad for p in layer.parameters())):
            assert slope is not None
            assert torch.isfinite(slope).all()


def test_the_first_logits_are_fixed() -> None:
    """Drawn once from the seed, no parameter, kept with the weights, the same in training and after."""
    torch.manual_seed(6)
    towers = MIND(dim=DIM).build(Schema(history_length=LENGTH), CATALOGUE)
    torch.manual_seed(6)
    again = MIND(dim=DIM).build(Schema(history_length=LENGTH), CATALOGUE)
    logits = towers.get_buffer("extractor.logits")
    assert torch.equal(logits, again.get_buffer("extractor.logits"))
    assert "extractor.logits" not in dict(towers.named_parameters())
    assert "extractor.logits" in towers.state_dict()
    before, queries = logits.clone(), Queries(histories(), {})
    training = towers.train().user_vectors(queries)
    training.sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(training, towers.train().user_vectors(queries))
    assert torch.equal(training, towers.eval().user_vectors(queries))
    assert torch.equal(logits, before)
    assert 0.5 < float(logits.std()) < 1.5


def test_the_spread_is_the_logits_standard_deviation() -> None:
    torch.manual_seed(7)
    for spread in (0.5, 3.0):
        assert float(Routed(MIND(dim=DIM, spread=spread), 2000).logits.std()) == pytest.approx(spread, rel=0.05)


def test_a_band_sees_what_the_windows_hold() -> None:
    """Every request of a run sees its own last `length` events and no other, whether they are copied or not."""
    history = torch.tensor([[5, 6, 7, 8, 9], [1, 2, UNKNOWN, UNKNOWN, UNKNOWN]])
    runs = Runs(history, torch.tensor([[0, 2, 5], [1, 2, 0]]), torch.tensor([0, 1, 2, 3, 4]), {}, {}, 3)
    found = Band.of_runs(runs)
    windows = found.windows()
    copied = torch.where(windows.real, windows.of(history), UNKNOWN).T
    assert torch.equal(copied, runs.queries().history)
    seen = found.asked(found.real)
    back = found.asked(found.back)
    owners = torch.tensor([0, 0, 0, 1, 1])
    for request in range(5):
        places = {
            int(b): int(r)
            for b, r, there in zip(back[request], history[owners[request]], seen[request], strict=True)
            if there
        }
        wanted = {2 - at: int(row) for at, row in enumerate(copied[request]) if row != UNKNOWN}
        assert places == wanted
    assert found.asked(found.counts).tolist() == [0, 2, 3, 1, 2]


def test_training_in_parts_changes_nothing() -> None:
    torch.manual_seed(8)
    layer = RoutedByPlace(ComiRecDR(dim=DIM, interests=2), 3)
    count = 2 * PART + 7
    history = torch.randint(-1, CATALOGUE, (count, 3)).sort(1).values
    events = torch.randn(count, 3, DIM)
    asked = Band.of_queries(Queries(history, {}), 3)
    torch.testing.assert_close(layer.train()(events, asked).vectors, layer.eval()(events, asked).vectors)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MIND(rounds=0), r"\.rounds: 0; expected at least 1"),
        (lambda: MIND(spread=0.0), r"\.spread: 0\.0; expected a number above 0\. From equal logits"),
        (lambda: MIND(gain=0.0), r"\.gain: 0\.0; expected a number above 0"),
        (lambda: MIND(interests=0), r"\.interests: 0; expected at least 1"),
        (lambda: MIND(sharpness=-1.0), r"\.sharpness: -1\.0; expected 0 or above; inf trains the best interest"),
        (lambda: MIND(sharpness=math.nan), r"\.sharpness: nan"),
        (lambda: ComiRecDR(gain=0.0), r"\.gain: 0\.0; expected a number above 0"),
        (lambda: ComiRecDR(noise=0.0), r"\.noise: 0\.0; expected a number above 0"),
        (lambda: ComiRecDR(rounds=0), r"\.rounds: 0; expected at least 1"),
    ],
)
def test_what_cannot_route_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError, match=message):
        make()

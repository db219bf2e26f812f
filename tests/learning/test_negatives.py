"""Every sampler obeys E[Σ exp(s − logQ)] = Σ over the catalogue of exp(s)."""

from typing import Any

import numpy as np
import pytest
import torch

from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import SpecError
from zhiyin.learning.base import Catalogue, Positives
from zhiyin.learning.frequency import StreamingFrequency, example_frequencies
from zhiyin.learning.negatives import EXAMPLES, InBatch, Mixed, Popularity, Uniform, WholeCatalogue

SIZE, BATCH = 50, 64
FREQUENCIES = np.arange(1, SIZE + 1) ** -1.2
FREQUENCIES[-5:] = 0  # items that no training example has
FREQUENCIES /= FREQUENCIES.sum()
CATALOGUE = Catalogue(SIZE, FREQUENCIES.astype(np.float32), BATCH)


def positives(random: np.random.Generator) -> Positives:
    rows = random.choice(SIZE, size=BATCH, p=FREQUENCIES)
    return Positives(np.arange(BATCH), np.arange(BATCH) // 2, rows)


@pytest.mark.parametrize("example", EXAMPLES, ids=repr)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_law(example: Any, seed: int) -> None:
    """Drawn until the mean is within 2 % of the sum; in-batch negatives can be only what training examples have."""
    random = np.random.default_rng(seed)
    scores = random.uniform(-1, 1, SIZE)
    within = FREQUENCIES > 0 if isinstance(example, InBatch) else np.ones(SIZE, bool)
    wanted = np.exp(scores[within]).sum()
    sampler = example.build(CATALOGUE)
    found = []
    for step in range(6000):
        negatives = sampler(positives(random), step, random)
        found.append(np.exp(scores[negatives.rows] - negatives.logq).sum())
    assert np.mean(found) == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("example", EXAMPLES, ids=repr)
def test_logq_is_the_log_of_how_often_an_item_is_drawn(example: Any) -> None:
    random = np.random.default_rng(0)
    sampler, counts, rounds = example.build(CATALOGUE), np.zeros(SIZE), 2000
    expected = np.full(SIZE, np.nan)
    for step in range(rounds):
        batch = positives(random)
        negatives = sampler(batch, step, random)
        counts += np.bincount(negatives.rows, minlength=SIZE)
        expected[negatives.rows] = np.exp(negatives.logq)
        expected[batch.rows] = np.exp(negatives.positive_logq)  # the positives' logQ is the same law
    often = counts >= 2000
    assert often.any()
    np.testing.assert_allclose(expected[often], counts[often] / rounds, rtol=0.06)


@pytest.mark.parametrize("example", EXAMPLES, ids=repr)
def test_the_generator_is_the_only_chance(example: Any) -> None:
    batch = positives(np.random.default_rng(7))
    one, two = (example.build(CATALOGUE)(batch, 0, np.random.default_rng(1)) for _ in range(2))
    assert np.array_equal(one.rows, two.rows)
    assert len(one.rows) == len(one.logq)
    assert len(one.positive_logq) == BATCH
    assert one.owners is None or len(one.owners) == len(one.rows)


@pytest.mark.parametrize("example", [InBatch(), Mixed(32)], ids=repr)
def test_negatives_from_the_batch_say_whose_they_are(example: Any) -> None:
    """A user's own positives are no negatives of theirs, however many of their examples a batch has."""
    batch = positives(np.random.default_rng(0))
    negatives = example.build(CATALOGUE)(batch, 0, np.random.default_rng(1))
    assert np.array_equal(negatives.rows[:BATCH], batch.rows)
    assert np.array_equal(negatives.owners[:BATCH], batch.users)
    assert (negatives.owners[BATCH:] == UNKNOWN).all()


def test_items_without_examples_can_be_negatives_where_the_sampler_says_so() -> None:
    random = np.random.default_rng(0)
    for example in (Uniform(64), Popularity(64), Mixed(64), WholeCatalogue()):
        sampler = example.build(CATALOGUE)
        drawn = [sampler(positives(random), step, random).rows for step in range(300)]
        assert len(np.unique(np.concatenate(drawn))) == SIZE, example


def test_power_and_count_have_an_effect() -> None:
    def mean_frequency(example: Popularity) -> float:
        random = np.random.default_rng(0)
        rows = example.build(CATALOGUE)(positives(random), 0, random).rows
        assert len(rows) == example.count
        return float(CATALOGUE.frequencies[rows].mean())

    assert (
        mean_frequency(Popularity(4000, 0.0))
        < mean_frequency(Popularity(5000, 0.5))
        < mean_frequency(Popularity(4000, 1.0))
    )


@pytest.mark.parametrize(
    "make", [lambda: Uniform(0), lambda: Popularity(0), lambda: Mixed(0), lambda: Popularity(5, floor=0)]
)
def test_impossible_counts_are_refused(make: Any) -> None:
    with pytest.raises(SpecError, match="expected"):
        make()


def test_example_frequencies_weigh_each_example() -> None:
    shares = example_frequencies(np.array([0, 0, 1, 3], np.int32), 5, np.array([0.5, 0.5, 1.0, 2.0], np.float32))
    np.testing.assert_allclose(shares, [0.25, 0.25, 0.0, 0.5, 0.0])


class SlowFrequency:
    """Yi et al. 2019, algorithm 2, one item at a time with dictionaries."""

    def __init__(self, fast: StreamingFrequency, start: float) -> None:
        self.fast, self.start = fast, start
        self.last: dict[tuple[int, int], int] = {}
        self.gap: dict[tuple[int, int], float] = {}

    def buckets(self, row: int) -> list[tuple[int, int]]:
        return list(enumerate(self.fast.places(torch.tensor([row]))[:, 0].tolist()))

    def update(self, rows: set[int], step: int) -> None:
        before = dict(self.last)
        gaps = dict(self.gap)
        for row in rows:
            for bucket in self.buckets(row):
                if bucket in before:
                    old = gaps.get(bucket, self.start)
                    self.gap[bucket] = (1 - self.fast.rate) * old + self.fast.rate * (step - before[bucket])
                self.last[bucket] = step

    def probability(self, row: int) -> float:
        return min(1.0, 1 / max(self.gap.get(bucket, self.start) for bucket in self.buckets(row)))


def test_streaming_frequency_is_the_papers() -> None:
    fast = StreamingFrequency(30, 8, buckets=64, hashes=3, rate=0.1, seed=3)
    slow = SlowFrequency(fast, 30 / 8)
    random = np.random.default_rng(0)
    for step in range(1, 60):
        rows = random.integers(0, 30, 8)
        fast.update(torch.from_numpy(rows), step)
        slow.update(set(rows.tolist()), step)
    found = fast.probabilities(torch.arange(30))
    np.testing.assert_allclose(found.numpy(), [slow.probability(row) for row in range(30)], rtol=1e-5)


def test_streaming_frequency_finds_how_often_a_batch_has_an_item() -> None:
    """An item every 4 steps, another every 20, in a stream long enough to forget the start."""
    fast = StreamingFrequency(100, 10, rate=0.05)
    for step in range(1, 2001):
        rows = [row for row, every in ((1, 4), (2, 20)) if step % every == 0] + [50 + step % 7]
        fast.update(torch.tensor(rows), step)
    np.testing.assert_allclose(fast.probabilities(torch.tensor([1, 2])).numpy(), [1 / 4, 1 / 20], rtol=0.02)
    fresh = StreamingFrequency(100, 10).probabilities(torch.tensor([7]))
    assert float(fresh) == pytest.approx(10 / 100)  # before it was ever seen: as if all were alike

"""Every sampler obeys E[Σ exp(s − logQ)] = Σ over the catalogue of exp(s)."""

import math
import weakref
from typing import Any

import numpy as np
import pytest
import torch

from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Vocabulary
from zhiyin.errors import DataError, SpecError
from zhiyin.indexes.base import Vectors
from zhiyin.learning.base import Catalogue, Numbers, Positives
from zhiyin.learning.frequency import StreamingFrequency, example_frequencies
from zhiyin.learning.hard import Impressions, Mined
from zhiyin.learning.negatives import (
    EXAMPLES,
    CrossBatch,
    InBatch,
    LogUniform,
    Mixed,
    Popularity,
    Uniform,
    WholeCatalogue,
)
from zhiyin.learning.streaming import Streaming

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
    within = FREQUENCIES > 0 if isinstance(example, InBatch | CrossBatch) else np.ones(SIZE, bool)
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
    for _ in range(example.remembers):
        sampler(positives(random), 0, random)
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


def test_log_uniform_goes_by_rank_not_by_count() -> None:
    """The same draws whether the first item is a little or far more popular than the second."""
    drawn = []
    for exponent in (0.3, 3.0):
        frequencies = np.arange(1, 11.0) ** -exponent
        sampler = LogUniform(20_000).build(Catalogue(10, (frequencies / frequencies.sum()).astype(np.float32)))
        random = np.random.default_rng(0)
        drawn.append(
            np.bincount(sampler(Positives(*np.zeros((3, 1), np.int64)), 0, random).rows, minlength=10) / 20_000
        )
    np.testing.assert_array_equal(drawn[0], drawn[1])
    np.testing.assert_allclose(drawn[0], np.log1p(1 / np.arange(1, 11)) / math.log(11), atol=0.01)


def test_a_cross_batch_has_the_batches_before_it_and_no_others() -> None:
    random = np.random.default_rng(0)
    sampler, batches = CrossBatch(2).build(CATALOGUE), [positives(random) for _ in range(5)]
    for step, batch in enumerate(batches):
        negatives = sampler(batch, step, random)
        kept = batches[max(0, step - 2) : step + 1][::-1]
        assert np.array_equal(negatives.rows, np.concatenate([one.rows for one in kept]))
        assert np.array_equal(negatives.owners, np.concatenate([one.users for one in kept]))  # type: ignore[arg-type]


def test_the_streaming_sampler_comes_to_the_law() -> None:
    """Once it has seen enough, its estimates do for Zipf items what exact counts do."""
    random = np.random.default_rng(0)
    scores = random.uniform(-1, 1, SIZE)
    sampler, found = Streaming(rate=0.005, buckets=1 << 16).build(CATALOGUE), []
    for step in range(6000):
        negatives = sampler(positives(random), step, random)
        if step >= 3000:
            found.append(np.exp(scores[negatives.rows] - negatives.logq).sum())
    assert np.mean(found) == pytest.approx(np.exp(scores[FREQUENCIES > 0]).sum(), rel=0.1)


def test_expected_counts_do_not_stop_at_one() -> None:
    """An item three times in every batch, one once in every fourth."""
    stream = StreamingFrequency(100, 10, rate=0.05)
    for step in range(1, 1001):
        stream.update(torch.tensor([1, 1, 1] + [2] * (step % 4 == 0) + [50 + step % 7]), step)
    counts = stream.expected_counts(torch.tensor([1, 2]))
    np.testing.assert_allclose(counts.numpy(), [3.0, 0.25], rtol=0.05)
    assert float(stream.probabilities(torch.tensor([1]))) == pytest.approx(1.0)


def shown_log(shown: list[list[str] | None]) -> Prepared:
    """Two users with the same count of events, each with what was shown when it happened."""
    count = len(shown)
    items = np.arange(count, dtype=np.int32)
    events = EventLog.of(
        np.repeat([0, 1], count // 2).astype(np.int32),
        items,
        np.arange(count),
        user_count=2,
        columns=Table.of({"shown": shown}),
    )
    nothing = Table.of({}, 2)
    return Prepared(Vocabulary.of(["a", "b"]), Vocabulary.of(map(str, range(20))), events, nothing, Table.of({}, 20))


def asked(data: Prepared) -> Positives:
    log = data.events
    return Positives(np.arange(len(log)), log.users.astype(np.int64), log.items.astype(np.int64))


def test_impressions_without_a_choice_are_an_examples_own_negatives() -> None:
    shown = [["0", "7", "8"], None, ["9", "nowhere"], [str(row) for row in range(20)]]
    data = shown_log(shown)
    sampler = Impressions(Uniform(5), count=3).build(Catalogue(20, np.full(20, 0.05, np.float32), data=data))
    drawn: list[set[int]] = [set() for _ in range(4)]
    for seed in range(60):
        negatives = sampler(asked(data), 0, np.random.default_rng(seed))
        assert len(negatives.rows) == 5
        assert negatives.own is not None
        assert negatives.own.shape == (4, 3)
        for example, own in enumerate(negatives.own):
            real = own[own != UNKNOWN].tolist()
            assert len(set(real)) == len(real)
            drawn[example] |= set(real)
    assert drawn == [{7, 8}, set(), {9}, set(range(20)) - {3}]


def test_mined_negatives_are_near_and_never_what_the_user_chose() -> None:
    data = shown_log([None] * 6)
    vectors = np.stack([np.cos(np.arange(20) / 20), np.sin(np.arange(20) / 20)], axis=1).astype(np.float32)
    looked: list[int] = []

    def look(rows: Numbers) -> Vectors:
        looked.append(len(rows))
        return np.asarray(vectors[rows])

    catalogue = Catalogue(20, np.full(20, 0.05, np.float32), data=data, vectors=look)
    spec = Mined(Uniform(5), count=4, every=10, pool=20, skip=1, width=6)
    sampler, found = spec.build(catalogue), set()
    for step in range(20):
        own = sampler(asked(data), step, np.random.default_rng(step)).own
        assert own is not None
        found |= set(own[5][own[5] != UNKNOWN].tolist())
        for user, chosen in ((0, {0, 1, 2}), (1, {3, 4, 5})):
            assert not chosen & set(own[3 * user : 3 * user + 3].ravel().tolist())
    near = np.argsort(-(vectors @ vectors[5]), kind="stable")[1:7]
    assert found <= set(near.tolist()) - {3, 4, 5}
    assert len(found) >= 2
    assert looked.count(20) == 2  # the pool's vectors are looked up every tenth step


def test_hard_negatives_say_what_they_lack() -> None:
    data = shown_log([None] * 4)
    catalogue = Catalogue(20, np.full(20, 0.05, np.float32), data=data)
    with pytest.raises(DataError, match=r"no event column 'seen'; expected one of shown"):
        Impressions(column="seen").build(catalogue)
    with pytest.raises(SpecError, match=r"Mined inside Impressions; expected the other way round"):
        Impressions(base=Mined())
    with pytest.raises(SpecError, match="mined from item vectors, and there are none"):
        Mined().build(catalogue)


def test_items_without_examples_can_be_negatives_where_the_sampler_says_so() -> None:
    random = np.random.default_rng(0)
    for example in (Uniform(64), Popularity(64), LogUniform(64), Mixed(64), WholeCatalogue()):
        sampler = example.build(CATALOGUE)
        drawn = [sampler(positives(random), step, random).rows for step in range(300)]
        assert len(np.unique(np.concatenate(drawn))) == SIZE, example


def test_frequencies_that_drawing_does_not_need_are_let_go() -> None:
    """They are as long as the catalogue, and a sampler lives as long as training."""
    frequencies = np.full(1000, 1e-3, np.float32)
    held = weakref.ref(frequencies)
    sampler = Popularity(64).build(Catalogue(1000, frequencies))
    del frequencies
    assert held() is None
    rows = np.array([1, 2])
    assert len(sampler(Positives(rows, rows, rows), 0, np.random.default_rng(0)).rows) == 64


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

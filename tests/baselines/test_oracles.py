"""Each baseline against a slow, plain version written from its paper; and what it refuses."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zhiyin.baselines import als, item_knn
from zhiyin.baselines.als import ALS, solved
from zhiyin.baselines.bpr import BPR
from zhiyin.baselines.ease import EASE
from zhiyin.baselines.histories import history_matrix, training_matrix
from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.popularity import Popularity
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import DAY, LeaveLastOut, Split
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.errors import DataError, SpecError

USERS, ITEMS = 25, 18


@pytest.fixture(scope="module")
def data() -> Prepared:
    """A log with repetitions, one event a day."""
    random = np.random.default_rng(3)
    each = random.integers(3, 12, USERS)
    users = np.repeat(np.arange(USERS), each).astype(np.int32)
    items = np.minimum(random.geometric(0.15, len(users)) - 1, ITEMS - 1).astype(np.int32)
    times = np.concatenate([np.arange(n) for n in each]) * DAY
    return Prepared(
        Vocabulary.of(f"u{u}" for u in range(USERS)),
        Vocabulary.of(f"i{i}" for i in range(ITEMS)),
        EventLog.of(users, items, times, user_count=USERS),
        Table.of({}, USERS),
        Table.of({}, ITEMS),
    )


@pytest.fixture(scope="module")
def split(data: Prepared) -> Split:
    return LeaveLastOut().split(data.events, True)


def met(data: Prepared, split: Split) -> np.ndarray:
    """float64 [users, items] 1 where a user met an item in training."""
    matrix = np.zeros((USERS, ITEMS))
    for event in split.train:
        matrix[data.events.users[event], data.events.items[event]] = 1
    return matrix


def histories(data: Prepared, split: Split) -> np.ndarray:
    matrix = np.zeros((len(split.test), ITEMS))
    for row, event in enumerate(split.test.starts):
        for item in data.events.history(int(event)):
            matrix[row, item] = 1
    return matrix


def test_the_matrices(data: Prepared, split: Split) -> None:
    np.testing.assert_array_equal(training_matrix(data, split).toarray(), met(data, split))
    np.testing.assert_array_equal(
        history_matrix(data.events, split.test.starts, ITEMS).toarray(), histories(data, split)
    )
    assert history_matrix(data.events, data.events.offsets[:2], ITEMS).nnz == 0


@pytest.mark.parametrize("half_life", [1.0, 2.5])
def test_recency_halves_with_the_place_in_the_history(data: Prepared, split: Split, half_life: float) -> None:
    expected = np.zeros((len(split.test), ITEMS))
    for row, event in enumerate(split.test.starts):
        past = data.events.history(int(event)).tolist()
        for at, item in enumerate(past):  # later ones overwrite: the latest counts
            expected[row, item] = 0.5 ** ((len(past) - 1 - at) / half_life)
    found = history_matrix(data.events, split.test.starts, ITEMS, half_life).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(("days", "half_life"), [(None, None), (4.0, None), (None, 2.0), (4.0, 2.0)])
def test_popularity(data: Prepared, split: Split, days: float | None, half_life: float | None) -> None:
    expected = np.zeros(ITEMS)
    for event in split.train:
        age = (split.end - data.events.times[event]) / DAY
        if days is None or age < days:
            expected[data.events.items[event]] += 1 if half_life is None else 0.5 ** (age / half_life)
    scores = Popularity(days, half_life).fit(data, split).scores(split.test.starts)
    np.testing.assert_allclose(scores.numpy(), np.tile(expected, (len(split.test), 1)), rtol=1e-5)


@pytest.mark.parametrize("neighbours", [3, 100])
@pytest.mark.parametrize("block", [1, 64 << 20])
def test_item_knn(data: Prepared, split: Split, neighbours: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(item_knn, "BLOCK_BYTES", block)
    matrix = met(data, split)
    similarity = np.zeros((ITEMS, ITEMS))
    for i in range(ITEMS):
        for j in range(ITEMS):
            if i != j:
                both = (matrix[:, i] * matrix[:, j]).sum()
                similarity[i, j] = both / (np.sqrt(matrix[:, i].sum() * matrix[:, j].sum()) + 2.5)
    expected = np.zeros((len(split.test), ITEMS))
    for i in range(ITEMS):
        for j in sorted(range(ITEMS), key=lambda j, i=i: (-np.float32(similarity[i, j]), j))[:neighbours]:  # type: ignore[misc]
            expected[:, i] += histories(data, split)[:, j] * similarity[i, j]
    scores = ItemKNN(neighbours, shrinkage=2.5).fit(data, split).scores(split.test.starts)
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("block", [5, 2048])
def test_ease(data: Prepared, split: Split, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhiyin.baselines.ease.BLOCK", block)
    matrix = met(data, split)
    inverse = np.linalg.inv(matrix.T @ matrix + 20 * np.eye(ITEMS))
    weights = np.eye(ITEMS) - inverse / np.diag(inverse)
    np.fill_diagonal(weights, 0)
    scores = EASE(penalty=20).fit(data, split).scores(split.test.starts)
    np.testing.assert_allclose(scores.numpy(), histories(data, split) @ weights, rtol=1e-3, atol=1e-5)


def test_ease_refuses_what_does_not_fit_and_says_how_much_it_needs(data: Prepared, split: Split) -> None:
    with pytest.raises(SpecError, match=r"18 items need a matrix of 18² floats, 0\.0 GB; expected at most memory_gb"):
        EASE(memory_gb=1e-9).fit(data, split)


@pytest.mark.parametrize("block", [1, 200, 1 << 23])
def test_an_als_half_step_solves_each_row_exactly(
    data: Prepared, split: Split, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(als, "BLOCK_FLOATS", block)
    matrix = training_matrix(data, split)
    items = np.random.default_rng(0).normal(size=(ITEMS, 4))
    expected = []
    for row in matrix.toarray():
        confidence = np.diag(1 + 3.0 * row)
        left = items.T @ confidence @ items + 0.5 * np.eye(4)
        expected.append(np.linalg.solve(left, items.T @ confidence @ row))
    found = solved(matrix, torch.from_numpy(items.astype(np.float32)), alpha=3.0, penalty=0.5)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_every_als_sweep_lowers_the_loss(data: Prepared, split: Split) -> None:
    matrix = met(data, split)

    def loss(sweeps: int) -> float:
        spec = ALS(dim=4, sweeps=sweeps, alpha=3, penalty=0.5)
        items = spec.fit(data, split).items
        users = solved(training_matrix(data, split), items, 3, 0.5).numpy()
        errors = (1 + 3 * matrix) * (matrix - users @ items.numpy().T) ** 2
        return float(errors.sum() + 0.5 * ((users**2).sum() + (items.numpy() ** 2).sum()))

    losses = [loss(sweeps) for sweeps in (1, 2, 4, 8)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.99 * losses[0]


def test_bpr_ranks_what_was_met_above_what_was_not(data: Prepared, split: Split) -> None:
    """The area under the curve of training pairs, which is what BPR-OPT maximises (section 4.1 of the paper)."""
    matrix, lasts = met(data, split), data.events.offsets[1:] - 1
    scores = BPR(dim=8, epochs=200).fit(data, split).scores(lasts).numpy()
    areas = [(row[there == 1][:, None] > row[there == 0]).mean() for row, there in zip(scores, matrix, strict=True)]
    assert np.mean(areas) > 0.95


def test_bpr_gives_a_user_it_never_met_the_biases(data: Prepared, split: Split) -> None:
    stranger = replace(split, train=split.train[data.events.users[split.train] != 0])
    scorer = BPR(dim=4, epochs=3).fit(data, stranger)
    torch.testing.assert_close(scorer.scores(data.events.offsets[:1])[0], scorer.items[:, -1])


def test_days_need_a_clock(data: Prepared, split: Split) -> None:
    for spec in (Popularity(days=7), Popularity(half_life=7)):
        with pytest.raises(DataError, match="Popularity: days need clock times"):
            spec.fit(replace(data, clock=False), split)


@pytest.mark.parametrize(
    ("kind", "wrong", "told"),
    [
        (Popularity, {"days": 0.0}, r"\.days"),
        (Popularity, {"half_life": -1.0}, r"\.half_life"),
        (ItemKNN, {"neighbours": 0}, "neighbours = 0"),
        (ItemKNN, {"half_life": -1.0}, r"half_life = -1\.0"),
        (EASE, {"penalty": 0.0}, r"penalty = 0\.0"),
        (ALS, {"alpha": 0.0}, r"alpha = 0\.0"),
        (BPR, {"rate": 0.0}, r"rate = 0\.0"),
    ],
)
def test_a_wrong_number_is_refused_by_name(kind: type, wrong: dict[str, float], told: str) -> None:
    with pytest.raises(SpecError, match=told):
        kind(**wrong)

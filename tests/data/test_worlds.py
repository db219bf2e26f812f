"""Every world's stated truth holds: an oracle reaches the stated ceiling, and what is said to drift or differ does."""

from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from zhiyin.data import worlds
from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.errors import SpecError


def last_events(log: EventLog) -> NDArray[np.int64]:
    return log.offsets[1:] - 1


def same(one: Prepared, two: Prepared) -> bool:
    return bool(
        np.array_equal(one.events.items, two.events.items) and np.array_equal(one.events.times, two.events.times)
    )


def test_ring_oracle_reaches_the_stated_recall() -> None:
    items, noise = 50, 0.3
    log = worlds.ring(users=4000, items=items, events_per_user=6, noise=noise, seed=1).events
    last = last_events(log)
    step = (log.items[last].astype(int) - log.items[last - 1]) % items
    for k in (1, 5):
        found = float(((step >= 1) & (step <= k)).mean())  # the next item and the k-1 after it
        assert found == pytest.approx(worlds.ring_recall(items, noise, k), abs=0.02)


def test_ring_without_noise_only_steps() -> None:
    log = worlds.ring(users=20, items=7, events_per_user=9, noise=0, seed=0).events
    inside = np.flatnonzero(log.users[1:] == log.users[:-1])
    assert np.all((log.items[inside + 1] - log.items[inside]) % 7 == 1)
    assert worlds.ring_recall(7, 0, 1) == 1


def test_random_world_has_nothing_to_learn() -> None:
    items = 20
    log = worlds.random_world(users=3000, items=items, events_per_user=10, seed=2).events
    pairs = np.zeros((items, items))
    last = last_events(log)
    np.add.at(pairs, (log.items[last - 1], log.items[last]), 1)
    expected = len(last) / items**2
    statistic = float(((pairs - expected) ** 2 / expected).sum())  # χ², mean 399, deviation 28
    assert 280 < statistic < 520
    assert np.bincount(log.items).min() > 0.85 * len(log) / items


@pytest.mark.parametrize("repeats", [False, True])
def test_tastes_oracle_reaches_the_stated_recall(repeats: bool) -> None:
    world = worlds.tastes(3000, 600, 6, 15, seed=3, interests=2, repeats=repeats)
    log = world.data.events
    last = last_events(log)
    likely = world.preferences(log.users[last])
    assert likely.sum(1) == pytest.approx(1)
    if not repeats:
        for row, event in enumerate(last):
            likely[row, log.history(int(event))] = 0
    best = np.argsort(-likely, axis=1)[:, :50]
    found = float((best == log.items[last, None]).any(1).mean())
    assert found == pytest.approx(world.best_recall(last, 50, seen=repeats), abs=0.025)
    assert found > 3 * 50 / 600


def test_tastes_popularity_matters_for_the_true_answer() -> None:
    """Ranking by p(item | user) / p(item), which in-batch softmax without logQ learns, is far below the ceiling."""
    world = worlds.tastes(2000, 4000, 10, 10, seed=4, skew=1.0)
    log = world.data.events
    last = last_events(log)
    likely = world.preferences(log.users[last])
    drawn = np.bincount(log.items, minlength=4000) + 1e-9
    best = np.argsort(-likely / drawn, axis=1)[:, :50]
    without_logq = float(np.take_along_axis(likely, best, 1).sum(1).mean())
    assert without_logq < 0.6 * world.best_recall(last, 50, seen=True)


def test_tastes_popularity_is_zipf_and_no_item_comes_twice() -> None:
    world = worlds.tastes(2000, 400, 4, 12, seed=5, repeats=True)
    counts = np.bincount(world.data.events.items, minlength=400)
    assert counts.max() > 20 * np.median(counts)
    unique = worlds.tastes(500, 400, 4, 12, seed=5).data.events
    assert all(len(set(row)) == 12 for row in unique.items.reshape(500, 12).tolist())


def test_tastes_columns_say_what_they_are_said_to() -> None:
    world = worlds.tastes(2000, 300, 5, 10, seed=6)
    favourite = world.shares.argmax(1)
    countries = np.array(worlds.COUNTRIES)[favourite % len(worlds.COUNTRIES)]
    agree = float((world.data.user_table["country"] == countries).mean())
    assert agree == pytest.approx(0.8 + 0.2 / len(worlds.COUNTRIES), abs=0.03)
    table = world.data.item_table
    assert [f"group {one}" for one in world.groups] == list(table["category"])
    assert all(f"of {one}" in tags for one, tags in zip(world.groups, table["tags"], strict=True))
    cheap, dear = (np.median(table["price"][world.groups == one]) for one in (0, 4))
    assert dear > 2 * cheap
    assert set(world.data.user_table) == {"country", "age"}


def test_tastes_device_tells_the_interest() -> None:
    world = worlds.tastes(500, 300, 6, 20, seed=7, interests=3, repeats=True)
    log = world.data.events
    group, device = world.groups[log.items], log.columns["device"]
    agree = []
    for user in range(500):
        events = slice(log.offsets[user], log.offsets[user + 1])
        for one in np.unique(group[events]):
            used = device[events][group[events] == one]
            agree.append(max(np.sum(used == name) for name in worlds.DEVICES) / len(used))
    assert np.mean(agree) > 0.8
    assert all(0.2 < float((device == name).mean()) < 0.5 for name in worlds.DEVICES)


def test_drifting_popularity_drifts_and_its_truth_is_the_best_answer() -> None:
    world = worlds.drifting(4000, 300, 8, seed=8)
    log = world.data.events
    late = np.flatnonzero(log.times > world.end - 2 * worlds.DAY)
    start, end = world.popularity(np.array([worlds.START, world.end]))
    assert np.corrcoef(start, end)[0, 1] < 0.2

    def recall(scores: NDArray[np.float64], k: int = 20) -> float:
        return float(np.isin(log.items[late], np.argsort(-scores)[:k]).mean())

    truth, forever = recall(end), recall(np.bincount(log.items, minlength=300).astype(float))
    assert truth == pytest.approx(world.best_recall(log.times[late], 20), abs=0.04)
    assert truth > 1.5 * forever
    assert world.data.clock
    assert log.times.max() < world.end


def test_drifting_events_follow_the_popularity_of_their_time() -> None:
    world = worlds.drifting(20_000, 40, 3, seed=9, days=10, width=2.0)
    log = world.data.events
    day = (log.times >= worlds.START + 4 * worlds.DAY) & (log.times < worlds.START + 5 * worlds.DAY)
    shares = np.bincount(log.items[day], minlength=40) / day.sum()
    truth = world.popularity(worlds.START + 4 * worlds.DAY + np.arange(24) * worlds.HOUR).mean(0)
    assert np.abs(shares - truth).max() < 0.015


def test_a_seed_is_a_world() -> None:
    assert same(worlds.ring(9, 8, 5, 0.5, 1), worlds.ring(9, 8, 5, 0.5, 1))
    assert not same(worlds.ring(9, 8, 5, 0.5, 1), worlds.ring(9, 8, 5, 0.5, 2))
    assert same(worlds.tastes(9, 40, 2, 5, 1).data, worlds.tastes(9, 40, 2, 5, 1).data)
    assert same(worlds.drifting(9, 40, 5, 1).data, worlds.drifting(9, 40, 5, 1).data)


def test_worlds_can_be_saved_as_prepared_data(tmp_path: Path) -> None:
    data = worlds.tastes(30, 60, 3, 6, seed=0, interests=2).data
    data.save(tmp_path / "prepared")
    opened = Prepared.open(tmp_path / "prepared")
    assert same(data, opened)
    assert list(opened.events.columns["device"]) == list(data.events.columns["device"])


def test_log_is_zipf_in_order_of_time() -> None:
    log = worlds.log(users=500, events=50_000, items=200, seed=0, skew=1.0, days=3)
    counts = np.sort(np.bincount(log.items, minlength=200))[::-1]
    assert counts[0] / len(log.items) == pytest.approx(worlds.zipf(200, 1.0)[0], abs=0.01)
    assert np.all(np.diff(log.times) >= 0)
    assert worlds.START <= log.times[0] <= log.times[-1] < worlds.START + 3 * worlds.DAY
    assert len(np.unique(log.users)) == 500


def test_written_log_is_the_log_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worlds, "_CHUNK", 300)
    sizes = {"users": 50, "events": 1000, "items": 30, "seed": 4}
    worlds.write_log(tmp_path / "log.parquet", **sizes)
    log = worlds.log(**sizes)
    rows = duckdb.read_parquet(str(tmp_path / "log.parquet")).fetchall()
    assert rows == [
        (f"u{u}", f"i{i}", t)
        for u, i, t in zip(log.users.tolist(), log.items.tolist(), log.times.tolist(), strict=True)
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: worlds.ring(0, 5, 5, 0.1, 0), "users = 0; expected at least 1"),
        (lambda: worlds.ring(5, 5, 5, 1.5, 0), "ring: noise = 1.5; expected between 0 and 1"),
        (lambda: worlds.tastes(5, 3, 4, 1, 0), "tastes: 3 items, 4 groups, 1 interests; expected no more groups"),
        (lambda: worlds.tastes(5, 20, 4, 9, 0), "9 events a user without repeats, of 5 items liked"),
    ],
)
def test_impossible_worlds_are_refused(make: object, words: str) -> None:
    assert callable(make)
    with pytest.raises(SpecError) as error:
        make()
    assert words in str(error.value)

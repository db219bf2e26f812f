"""The realistic world's truth is its truth: what is drawn follows what is said, by χ² at fixed seeds."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from numpy.typing import NDArray

from zhiyin.data import realistic as module
from zhiyin.data.prepared import Prepared
from zhiyin.data.realistic import Realistic, Shown
from zhiyin.data.sources import prepare
from zhiyin.data.worlds import COUNTRIES, DAY, DEVICES, START, realistic
from zhiyin.errors import SpecError


def small(seed: int = 1, **changes: Any) -> Realistic:
    given: dict[str, Any] = {
        "users": 6,
        "items": 40,
        "events": 60_000,
        "groups": 5,
        "days": 3,
        "width": 1.0,
        "shown": 2,
    }
    return realistic(seed=seed, **(given | changes))


def all_of(world: Realistic) -> Shown:
    parts = list(world.log())
    names = ("users", "items", "times", "interests", "others")
    return Shown(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def deviation(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """χ² of counts against what was expected, in standard deviations from its mean; cells of under 5 are pooled."""
    order = np.argsort(expected)
    small = int(np.searchsorted(expected[order], 5))
    found, expected = (
        np.concatenate([[values[order[:small]].sum()], values[order[small:]]]) for values in (found, expected)
    )
    found, expected = found[expected > 0], expected[expected > 0]
    freedom = len(found) - 1
    return float((((found - expected) ** 2 / expected).sum() - freedom) / np.sqrt(2 * freedom))


def test_preferences_are_the_stated_formula() -> None:
    world = small()
    user, day = 3, 1
    weights = [h * (0.05 + np.exp(-((1.5 - p) ** 2) / 2)) for h, p in zip(world.heights, world.peaks, strict=True)]
    expected = []
    for weight, group in zip(weights, world.groups, strict=True):
        inside = sum(w for w, g in zip(weights, world.groups, strict=True) if g == group)
        taste = sum(s for s, g in zip((6 / 11, 3 / 11, 2 / 11), world.liked[user], strict=True) if g == group)
        expected.append(0.1 * weight / sum(weights) + 0.9 * taste * weight / inside)
    found = world.preferences(np.array([user, 0]), np.array([START + day * DAY + 5, START]))
    assert found[0] == pytest.approx(expected)
    assert found.sum(1) == pytest.approx(1)


def test_events_are_drawn_by_the_preferences_of_their_user_and_day() -> None:
    world = small()
    log = all_of(world)
    days = (log.times - START) // DAY
    other = world.preferences(np.array([world.active[1]]), np.array([START]))[0]
    for user in range(6):
        for day in range(3):
            mine = (log.users == user) & (days == day)
            likely = world.preferences(np.array([user]), np.array([START + day * DAY + DAY // 2]))[0]
            counts = np.bincount(log.items[mine], minlength=40)
            assert abs(deviation(counts, likely * mine.sum())) < 4
            assert user == world.active[1] or deviation(counts, other * mine.sum()) > 20


def test_what_else_is_shown_is_drawn_by_popularity_and_was_not_chosen() -> None:
    world = small()
    log = all_of(world)
    assert not np.any(log.others == log.items[:, None])
    for day in range(3):
        today = (log.times - START) // DAY == day
        likely = world.popularity(day)
        chosen = np.bincount(log.items[today], minlength=40)
        for others in log.others[today].T:
            counts = np.bincount(others[others >= 0], minlength=40)
            assert abs(deviation(counts, likely * (today.sum() - chosen))) < 4
    assert small(shown=0).log().__next__().others.shape[1] == 0


def test_an_event_is_of_the_interest_it_says_or_of_none() -> None:
    world = small(noise=0.25)
    log = all_of(world)
    of_some = log.interests >= 0
    assert np.array_equal(world.groups[log.items[of_some]], world.liked[log.users, log.interests][of_some])
    shares = np.array([0.25, 0.75 * 6 / 11, 0.75 * 3 / 11, 0.75 * 2 / 11])
    assert abs(deviation(np.bincount(log.interests + 1), shares * 60_000)) < 4


def test_the_oracle_reaches_the_stated_recall_and_popularity_does_not() -> None:
    world = realistic(3000, 2000, 6000, seed=2, groups=30, days=20)
    log = all_of(world)
    likely = world.preferences(log.users[::3], log.times[::3])
    best = np.argpartition(-likely, 50, axis=1)[:, :50]
    found = float((best == log.items[::3, None]).any(1).mean())
    assert found == pytest.approx(world.best_recall(log.users[::3], log.times[::3], 50), abs=0.03)
    popular = np.argsort(-np.bincount(log.items, minlength=2000))[:50]
    assert float(np.isin(log.items, popular).mean()) < found - 0.15


def test_what_is_popular_drifts() -> None:
    world = realistic(2000, 1000, 60_000, seed=3, days=40)
    log = all_of(world)
    first, last = (
        set(np.argsort(-np.bincount(log.items[part], minlength=1000))[:50].tolist())
        for part in (slice(6000), slice(-6000, None))
    )
    assert len(first & last) < 25


def test_how_many_when_and_who() -> None:
    world = realistic(1000, 500, 99_999, seed=4, days=14)
    log = all_of(world)
    assert len(log.users) == 99_999
    assert np.all(np.diff(log.times) >= 0)
    assert START <= log.times[0] < log.times[-1] < START + 14 * DAY
    days = np.bincount((log.times - START) // DAY, minlength=14)
    assert days[5] / days[4] == pytest.approx(1.3, abs=0.01)
    noon = np.abs((log.times - START) % DAY - DAY // 2) < DAY // 4
    assert float(noon.mean()) == pytest.approx(0.75, abs=0.01)
    assert len(np.unique(log.users)) == len(world.active) == 980
    counts = np.bincount(log.users, minlength=1000)
    busiest = np.sqrt(np.arange(981) / 980) * 99_999
    assert abs(deviation(counts[world.active], np.diff(busiest))) < 4
    items = np.sort(np.bincount(log.items, minlength=500))[::-1]
    assert items[:25].sum() > 4 * 0.05 * items.sum()


def test_a_world_is_its_seed() -> None:
    one, again, other = (all_of(small(seed)) for seed in (1, 1, 2))
    for name in ("users", "items", "times", "interests", "others"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    world = small()
    assert np.array_equal(all_of(world).items, all_of(world).items)


def test_a_piece_is_small_however_large_the_log() -> None:
    large = realistic(10, 10, 10**10, seed=0, groups=2)
    first = next(large.log())
    assert len(first.users) <= module._CHUNK
    assert first.times[-1] - START < DAY / 10


def test_pieces_of_a_day_join_without_a_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK", 1000)
    log = all_of(small(events=30_000))
    assert len(log.times) == 30_000
    assert np.all(np.diff(log.times) >= 0)
    noon = np.abs((log.times - START) % DAY - DAY // 2) < DAY // 4
    assert float(noon.mean()) == pytest.approx(0.75, abs=0.01)


def test_what_is_written_is_the_log_with_columns_that_tell(tmp_path: Path) -> None:
    world = realistic(3000, 400, 20_000, seed=5, groups=12, days=10)
    source = world.write(tmp_path / "world")
    summary = prepare(source, tmp_path / "data")
    data = Prepared.open(tmp_path / "data")
    log = all_of(world)
    assert (summary.users, summary.items, summary.users_without_attributes) == (3000, 400, 0)
    assert summary.events + summary.duplicates == 20_000
    read = pyarrow.parquet.read_table(tmp_path / "world" / "events.parquet")
    assert read.column("user").to_pylist() == [f"u{user}" for user in log.users]
    assert read.column("item").to_pylist() == [f"i{item}" for item in log.items]
    assert read.column("time").to_pylist() == log.times.tolist()
    shown = pyarrow.parquet.read_table(tmp_path / "world" / "impressions.parquet")
    assert len(shown) == np.count_nonzero(log.others >= 0)
    pairs = zip(*(shown.column(name).to_pylist() for name in ("user", "time", "item")), strict=True)
    assert sorted(pairs) == sorted(
        (f"u{user}", time, f"i{other}")
        for user, time, other in zip(log.users, log.times, log.others[:, 0], strict=True)
        if other >= 0
    )
    items = np.array([int(one[1:]) for one in data.items.ids()])
    assert list(data.item_table["category"]) == [f"group {group}" for group in world.groups[items]]
    cheap, dear = (np.median(data.item_table["price"][world.groups[items] == group]) for group in (0, 11))
    assert dear > 2 * cheap
    users = np.array([int(one[1:]) for one in data.users.ids()])
    favourite = np.array(COUNTRIES)[world.liked[users, 0] % len(COUNTRIES)]
    assert float((data.user_table["country"] == favourite).mean()) == pytest.approx(0.8 + 0.2 / 6, abs=0.03)
    device = np.array(read.column("device").to_pylist())
    told = device == np.array(DEVICES)[log.interests % len(DEVICES)]
    assert float(told.mean()) == pytest.approx(0.8 + 0.2 / 3, abs=0.02)
    assert set(data.events.columns["device"]) == set(DEVICES)


def test_a_world_that_cannot_be_is_refused() -> None:
    with pytest.raises(SpecError, match="users = 0; expected at least 1"):
        small(users=0)
    for changes in ({"groups": 41}, {"noise": 1.5}, {"shown": -1}, {"width": 0.0}):
        with pytest.raises(SpecError, match=r"expected no more groups than items, noise between 0 and 1"):
            small(**changes)

"""What every channel must do, run on each that the package brings; and what each finds, against a slow oracle."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from zhiyin import spec
from zhiyin.baselines.ease import EASE
from zhiyin.baselines.item_knn import ItemKNN
from zhiyin.baselines.neighbourhoods import fitted
from zhiyin.baselines.popularity import Popularity
from zhiyin.channels.base import Channel, Found, Seeker
from zhiyin.channels.deep import Deep
from zhiyin.channels.fresh import Fresh
from zhiyin.channels.item_to_item import ItemToItem
from zhiyin.channels.listed import Listed
from zhiyin.channels.neighbours import Neighbours
from zhiyin.channels.popular import Popular
from zhiyin.data.prepared import Prepared
from zhiyin.data.sources import Source, prepare
from zhiyin.data.splits import DAY, Split
from zhiyin.data.tables import Table
from zhiyin.data.vocabulary import UNKNOWN, Rows
from zhiyin.errors import DataError, RequestError, SpecError
from zhiyin.features.schema import AGE, TIME
from zhiyin.release import Arrays, Release
from zhiyin.service.overlay import Overlay
from zhiyin.stores.base import Change, Event

CHANNELS = [one for one in spec.examples("zhiyin.channels") if isinstance(one, Channel)]
NOTHING = np.empty(0, np.int32)


@pytest.fixture(scope="module")
def whole(data: Prepared, split: Split) -> Split:
    """All of the log is learned from, as it is when a release is published."""
    return replace(split, train=np.arange(len(data.events)), end=int(data.events.times.max()))


@pytest.fixture
def tabled(data: Prepared, whole: Split) -> Any:
    """tabled(channel): its tables."""

    def neighbourhoods(baseline: Mapping[str, Any], keep: int) -> Arrays:
        return fitted(baseline, data, whole, keep)

    return lambda channel, of=data: channel.tables(of, neighbourhoods)


def seeker(
    history: Rows = NOTHING, k: int = 10, hidden: Rows = NOTHING, allowed: Any = None, **profile: object
) -> Seeker:
    events = [Event("", f"i{row}", at, {"stars": 3}) for at, row in enumerate(history)]
    return Seeker(history, events, profile, {TIME: 1_800_000_000_000, AGE: 0}, np.unique(hidden), k, allowed)


def some_seekers(size: int) -> list[Seeker]:
    """Long and short histories, few and many hidden, no filter, a wide one and narrow ones."""
    random = np.random.default_rng(1)
    passing = random.random(size) < 0.3
    few = np.zeros(size, bool)
    few[[3, 9, 30]] = True
    found = []
    for at in range(12):
        history = random.integers(0, size, at).astype(np.int32)
        hidden = random.permutation(size)[: 5 * at].astype(np.int32)
        allowed = (None, passing, few, np.zeros(size, bool))[at % 4]
        found.append(seeker(history, (1, 7, size)[at % 3], hidden, allowed, country="cn" if at % 2 else "nowhere"))
    return found


@pytest.fixture(params=CHANNELS, ids=repr)
def channel(request: pytest.FixtureRequest) -> Channel:
    return cast(Channel, request.param)


def same(one: Found, other: Found) -> None:
    assert one.rows.tolist() == other.rows.tolist()
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)
    assert one.interests.tolist() == other.interests.tolist()


def test_each_of_the_package_is_here() -> None:
    assert {type(one).__name__ for one in CHANNELS} == {
        "Deep", "Popular", "ItemToItem", "Fresh", "Neighbours", "Listed",
    }  # fmt: skip


def test_only_what_is_allowed_and_not_hidden_comes_once_and_in_order(
    channel: Channel, release: Release, tabled: Any
) -> None:
    seekers, tables = some_seekers(len(release.items)), tabled(channel)
    for one, found in zip(seekers, channel.find(release, tables, seekers), strict=True):
        rows = found.rows.tolist()
        assert len(found.rows) == len(found.scores) == len(found.interests) == len(set(rows)) <= one.k
        assert not set(rows) & set(one.hidden.tolist())
        assert one.allowed is None or one.allowed[rows].all()
        assert found.scores.tolist() == sorted(found.scores.tolist(), reverse=True)
        assert np.isfinite(found.scores).all()
    assert channel.find(release, tables, []) == []


def test_whom_it_knows_it_finds_something_for(channel: Channel, release: Release, tabled: Any) -> None:
    known = seeker(np.array([4, 8, 4], np.int32), country="cn")
    assert channel.knows(release, known)
    assert len(channel.find(release, tabled(channel), [known])[0].rows)


def test_one_is_answered_as_in_a_crowd(channel: Channel, release: Release, tabled: Any) -> None:
    seekers, tables = some_seekers(len(release.items)), tabled(channel)
    together = channel.find(release, tables, seekers)
    for one, found in zip(seekers, together, strict=True):
        same(channel.find(release, tables, [one])[0], found)


def test_a_release_without_its_tables_says_so(channel: Channel, release: Release, tabled: Any) -> None:
    one = seeker(np.array([1], np.int32), country="cn")
    if not tabled(channel):
        assert len(channel.find(release, {}, [one])[0].rows)
        return
    with pytest.raises(
        RequestError, match=rf"^release '{release.id}' was published without this channel.*publish again"
    ):
        channel.find(release, {}, [one])


def grown(release: Release) -> Release:
    """The release with three items that came after it, and without two of its own."""
    overlay = Overlay(release)
    put = [Change(f"new{at}", 2**42, {}, 1 + at) for at in range(3)]
    overlay.apply([*put, *(Change(item, 2**42, None, 4 + at) for at, item in enumerate(release.items.ids([4, 9])))])
    return overlay.view()


def test_items_that_came_later_and_items_that_went_trouble_none_of_them(
    channel: Channel, release: Release, tabled: Any
) -> None:
    larger = grown(release)
    assert larger.since is not None
    size, tables = len(larger.items), tabled(channel)
    assert size == len(release.items) + 3
    gone = larger.since.gone
    later = np.array([size - 1], np.int32)
    asked = [*some_seekers(size), seeker(later, hidden=later), seeker(np.array([1, size - 1, 4], np.int32), k=size)]
    seekers = [
        replace(one, gone=gone, hidden=np.setdiff1d(one.hidden, gone), allowed=without(one.allowed, gone))
        for one in asked
    ]
    for one, found in zip(seekers, channel.find(larger, tables, seekers), strict=True):
        rows = set(found.rows.tolist())
        assert not rows & ({*one.hidden.tolist()} | {*gone.tolist()})
        assert one.allowed is None or one.allowed[list(rows)].all()


def without(allowed: Any, gone: Rows) -> Any:
    if allowed is None:
        return None
    passing = allowed.copy()
    passing[gone] = False
    return passing


# what each finds


def test_popular_ranks_as_the_baseline_does(data: Prepared, release: Release, whole: Split, tabled: Any) -> None:
    for channel, baseline in (
        (Popular(days=0.2), Popularity(days=0.2)),
        (Popular(half_life=0.1), Popularity(half_life=0.1)),
        (Popular(days=0.1, half_life=0.05), Popularity(days=0.1, half_life=0.05)),
    ):
        counts = baseline.fit(data, whole).items[:, 0].numpy()
        some = int(np.count_nonzero(counts))
        found = channel.find(release, tabled(channel), [seeker(k=some)])[0]
        np.testing.assert_allclose(counts[found.rows], np.sort(counts)[::-1][:some], rtol=1e-5)
        np.testing.assert_allclose(found.scores, 1 / np.arange(1, some + 1), rtol=1e-6)
    assert (np.diff(np.sort(counts)[-4:]) > 1e-3).any(), "and the order says something"


def test_a_segment_has_an_order_of_its_own_and_a_stranger_gets_everyones(
    data: Prepared, release: Release, tabled: Any
) -> None:
    channel = Popular(segment="country")
    tables, log = tabled(channel), data.events
    countries = data.user_table["country"]

    def ranking(country: str = "") -> list[int]:
        counts = Counter(
            int(item) for user, item in zip(log.users, log.items, strict=True) if country in ("", countries[user])
        )
        return sorted(counts, key=lambda row: (-counts[row], row))[:10]

    asked = [seeker(country="cn"), seeker(country="fr"), seeker(country="de"), seeker(), seeker(country=["cn"])]
    found = [one.rows.tolist() for one in channel.find(release, tables, asked)]
    assert found == [ranking("cn"), ranking("fr"), ranking(), ranking(), ranking()]
    assert ranking("cn") != ranking("fr")


def test_a_segment_of_numbers_is_found_by_number(data: Prepared, release: Release, tabled: Any) -> None:
    channel = Popular(segment="age")
    tables = tabled(channel)
    found = channel.find(release, tables, [seeker(k=3, age=20), seeker(k=3, age=20.0), seeker(k=3, age="20")])
    user = int(np.flatnonzero(data.user_table["age"] == 20)[0])
    own = data.events.items[data.events.offsets[user] : data.events.offsets[user + 1]]
    for one in found:
        assert one.rows.tolist() == np.sort(own)[:3].tolist()


def test_beyond_its_window_popular_goes_on_with_all_time_and_then_by_row(release: Release, tabled: Any) -> None:
    channel, few = Popular(days=0.02), replace(release, popular=np.array([50, 40], np.int32))
    tables = tabled(channel)
    order = [row for row in tables["rows"][0].tolist() if row != UNKNOWN]
    assert 0 < len(order) < 55, "the window holds some of the items"
    wanted = [*order, *(row for row in (50, 40) if row not in order)]
    wanted += [row for row in range(60) if row not in wanted]
    assert channel.find(few, tables, [seeker(k=60)])[0].rows.tolist() == wanted


def test_fresh_gives_the_newest_first_and_what_came_after_the_release_before_them(
    data: Prepared, release: Release, tabled: Any
) -> None:
    log = data.events
    came = {int(item): int(log.times[log.items == item].min()) for item in log.items}
    newest = sorted(came, key=lambda row: (-came[row], row))
    tables = tabled(Fresh())
    found = Fresh().find(release, tables, [seeker(k=60), seeker(k=5, hidden=np.array(newest[:50], np.int32))])
    assert found[0].rows.tolist()[: len(newest)] == newest
    assert found[1].rows.tolist() == newest[50:55]
    larger = Fresh().find(grown(release), tables, [seeker(k=4), seeker(k=4, hidden=np.array([61], np.int32))])
    assert [one.rows.tolist() for one in larger] == [[62, 61, 60, newest[0]], [62, 60, newest[0], newest[1]]]


def test_fresh_among_the_newest_gives_first_what_the_towers_score_highest(release: Release, tabled: Any) -> None:
    """Held against the deep channel's own scores of the whole catalogue; a stranger gets the newest first."""
    tables, view = tabled(Fresh()), grown(release)
    seekers = [one for one in some_seekers(len(release.items)) if one.allowed is None]
    seekers += [seeker(np.array([1, 5], np.int32), k=4), seeker(np.array([2], np.int32), k=60)]
    seekers = [replace(one, gone=np.array([4, 9], np.int32)) for one in seekers]
    everything = Deep().find(view, {}, [replace(one, k=63) for one in seekers])
    scores = [dict(zip(one.rows.tolist(), one.scores.tolist(), strict=True)) for one in everything]
    newest = Fresh().find(view, tables, [replace(one, k=15) for one in seekers])
    liked = Fresh(among=15).find(view, tables, seekers)
    assert any(
        one.rows.tolist() != other.rows.tolist()[: len(one.rows)] for one, other in zip(liked, newest, strict=True)
    )
    for asked, one, other, known in zip(seekers, liked, newest, scores, strict=True):
        wanted = sorted(other.rows.tolist(), key=lambda row, known=known: -known[row])[: asked.k]  # type: ignore[misc]
        assert one.rows.tolist() == wanted
        np.testing.assert_allclose(one.scores, [known[row] for row in wanted], atol=1e-5)
        assert one.interests.tolist() == [0] * len(wanted)
    assert {60, 61, 62} <= {*liked[-1].rows.tolist()}, "what was put since is the newest"
    same(Fresh(among=15).find(view, tables, [seeker(k=5)])[0], Fresh().find(view, tables, [seeker(k=5)])[0])
    few = seeker(np.array([1], np.int32), k=5, allowed=np.zeros(63, bool))
    assert len(Fresh(among=15).find(view, tables, [few])[0].rows) == 0


def test_fresh_days_leave_out_what_is_older(data: Prepared, release: Release, tabled: Any) -> None:
    log, days = data.events, 0.15
    recent = {int(item) for item in log.items if log.times[log.items == item].min() > log.times.max() - days * DAY}
    found = Fresh(days=days).find(release, tabled(Fresh(days=days)), [seeker(k=60)])[0]
    assert 0 < len(recent) < 60
    assert set(found.rows.tolist()) == recent


def test_fresh_reads_a_column_of_the_item_table(data: Prepared, release: Release, tabled: Any) -> None:
    seconds = np.random.default_rng(0).permutation(60).astype(float)
    seconds[7] = np.nan
    days = [None if np.isnan(second) else date(2026, 1, 1) + timedelta(days=second) for second in seconds.tolist()]
    for values in (seconds, days):
        told = replace(data, item_table=Table.of({"published": values}))
        found = Fresh("published").find(release, tabled(Fresh("published"), told), [seeker(k=60)])[0]
        assert found.rows.tolist() == np.argsort(-seconds, kind="stable").tolist()
        assert found.rows[-1] == 7, "one without a time comes last"


@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Shanghai"])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_fresh_reads_the_dates_of_a_prepared_item_table(
    tmp_path: Path, tabled: Any, zone: str | None, form: str
) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    hours = [30, 2, None, 100, 55]
    came = [None if hour is None else start + timedelta(hours=hour, minutes=7) for hour in hours]
    items = pa.table({"item": list("abcde"), "came": pa.array(came, pa.timestamp("us", zone))})
    write = pa.parquet.write_table if form == "parquet" else pa.csv.write_csv
    write(items, tmp_path / f"items.{form}")
    pa.csv.write_csv(pa.table({"user": ["u"], "item": ["a"], "time": [1_770_000_000]}), tmp_path / "log.csv")
    prepare(Source(tmp_path / "log.csv", items=tmp_path / f"items.{form}"), tmp_path / "prepared")
    tables = tabled(Fresh("came"), Prepared.open(tmp_path / "prepared"))
    assert tables["rows"].tolist() == [3, 4, 0, 1, 2]


def test_item_to_item_is_the_nearest_to_any_of_the_last_items(release: Release) -> None:
    vectors = np.asarray(release.vectors)
    history = np.array([11, 3, 17, 3, 20, 17], np.int32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for last, anchors in ((1, [17]), (3, [17, 20, 3]), (9, [17, 20, 3, 11])):
        best = (unit[anchors] @ vectors.T).max(0)
        best[anchors] = -np.inf
        found = ItemToItem(last).find(release, {}, [seeker(history, k=8)])[0]
        assert found.rows.tolist() == np.argsort(-best, kind="stable")[:8].tolist()
        np.testing.assert_allclose(found.scores, np.sort(best)[::-1][:8], atol=1e-5)
    assert not ItemToItem().knows(release, seeker(country="cn"))
    larger, later = grown(release), seeker(np.array([60], np.int32), hidden=np.array([60], np.int32))
    assert ItemToItem().knows(larger, later), "an item that was put while it serves has neighbours, too"
    assert len(ItemToItem().find(larger, {}, [later])[0].rows) == 10
    assert not ItemToItem().knows(larger, replace(seeker(np.array([4], np.int32)), gone=np.array([4], np.int32)))


class Calls:
    """An index that counts its searches."""

    def __init__(self, index: Any) -> None:
        self.index, self.count = index, 0

    def __len__(self) -> int:
        return len(self.index)

    def search(self, *arguments: Any) -> Any:
        self.count += 1
        return self.index.search(*arguments)


def test_item_to_item_asks_the_index_once_for_all(release: Release) -> None:
    calls = Calls(release.index)
    seekers = [
        seeker(np.arange(at, at + 4, dtype=np.int32), hidden=np.arange(at, at + 4, dtype=np.int32)) for at in range(6)
    ]
    ItemToItem().find(replace(release, index=cast(Any, calls)), {}, seekers)
    assert calls.count == 1


@pytest.mark.parametrize("half_life", [0.0, 2.0])
def test_neighbours_score_as_the_baseline_that_was_evaluated(
    data: Prepared, release: Release, whole: Split, tabled: Any, half_life: float
) -> None:
    baseline = {"use": "item_knn:ItemKNN", "neighbours": 15, "shrinkage": 2.0, "half_life": half_life}
    channel, events = Neighbours(baseline, keep=60), whole.test.starts
    wanted = ItemKNN(15, 2.0, half_life).fit(data, whole).scores(events).numpy()
    found = channel.find(release, tabled(channel), [seeker(data.events.history(int(at)), k=60) for at in events])
    for one, scores in zip(found, wanted, strict=True):
        assert len(one.rows) == np.count_nonzero(scores)
        np.testing.assert_allclose(one.scores, np.sort(scores)[::-1][: len(one.rows)], rtol=1e-5)
        np.testing.assert_allclose(one.scores, scores[one.rows], rtol=1e-5)


def test_of_each_item_the_nearest_are_kept(data: Prepared, release: Release, whole: Split, tabled: Any) -> None:
    for baseline in ({"use": "item_knn:ItemKNN", "shrinkage": 2.0}, {"use": "ease:EASE", "penalty": 20.0}):
        few, all_ = (tabled(Neighbours(baseline, keep)) for keep in (4, 60))
        for row in range(60):
            part = slice(*all_["offsets"][row : row + 2])
            rows, scores = all_["rows"][part], all_["scores"][part]
            assert (np.diff(scores) <= 0).all()
            kept = slice(*few["offsets"][row : row + 2])
            assert few["rows"][kept].tolist() == rows[:4].tolist()
    weights = EASE(20.0).fit(data, whole)._weights
    assert all_["scores"].sum() == pytest.approx(np.maximum(weights, 0).sum(), rel=1e-4)
    one = Neighbours(baseline, 60).find(release, all_, [seeker(np.array([5], np.int32), k=60)])[0]
    np.testing.assert_allclose(one.scores, weights[5][one.rows], rtol=1e-5)


def test_listed_gives_its_list_and_then_what_is_popular(release: Release) -> None:
    channel = Listed(("i30", "gone", "i2"))
    found = channel.find(release, {}, [seeker(k=4), seeker(k=3, hidden=np.array([30, 0], np.int32))])
    assert [one.rows.tolist() for one in found] == [[30, 2, 0, 1], [2, 1, 3]]


@pytest.mark.parametrize(
    ("channel", "changes", "said"),
    [
        (Popular(days=7), {"clock": False}, r"channel Popular: days need clock times"),
        (Popular(segment="contry"), {}, r"no column 'contry' \(did you mean 'country'\?\)"),
        (Fresh(), {"clock": False}, r"channel Fresh: the log has no clock times.*Name a `column`"),
        (Fresh("titel"), {}, r"no column 'titel' \(did you mean 'title'\?\)"),
        (Fresh("title"), {}, r"'title' holds no times; expected Unix seconds, or dates"),
    ],
)
def test_what_the_log_cannot_give_is_refused_when_it_is_published(
    data: Prepared, tabled: Any, channel: Channel, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        tabled(channel, replace(data, **changes))


def test_too_many_segments_are_refused(data: Prepared, tabled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zhiyin.channels.popular.MOST_SEGMENTS", 39)
    with pytest.raises(DataError, match=r"'age' has 40 values; expected ≤ 39"):
        tabled(Popular(segment="age"))


def test_a_baseline_without_neighbours_is_no_channel(tabled: Any) -> None:
    with pytest.raises(SpecError, match=r"^\.baseline: use = 'popularity:Popularity' scores by no neighbours"):
        tabled(Neighbours({"use": "popularity:Popularity"}))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Popular(days=0), r"^\.days: 0; expected a number above 0"),
        (lambda: Popular(half_life=-1), r"^\.half_life: -1"),
        (lambda: ItemToItem(0), r"^\.last: 0; expected at least 1"),
        (lambda: Fresh(days=float("inf")), r"^\.days: inf"),
        (lambda: Fresh(among=-1), r"^\.among: -1; expected at least 0"),
        (lambda: Neighbours(keep=0), r"^\.keep: 0"),
        (lambda: Listed(()), r"^\.items: no items"),
        (lambda: Listed(("a", "a")), r"^\.items: an item stands here twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Any, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        make()

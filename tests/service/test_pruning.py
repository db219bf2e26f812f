"""The log of changes is pruned of what every release has absorbed; who follows it never misses what went."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from zhiyin import spec
from zhiyin.data.vocabulary import Vocabulary
from zhiyin.release import Release
from zhiyin.releases import Releases
from zhiyin.service import pruning
from zhiyin.service.live import Live
from zhiyin.service.overlay import as_of
from zhiyin.service.pruning import MONTH_MS, Pruned, absorbed, prune
from zhiyin.stores.base import Change, Page, Store, StoreSpec
from zhiyin.stores.memory import Memory

Placed = Callable[[StoreSpec, Path], StoreSpec]
TOLD: dict[str, Any] = {"tags": ["a"]}


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_who_is_behind_what_was_pruned_reads_anew(
    example: StoreSpec, placed: Placed, tmp_path: Path, releases: Releases
) -> None:
    """One replica saw an item deleted and slept while it was put again and that was pruned: so it never reads the put.
    Another sees all of it in time."""
    store: Store = placed(example, tmp_path).open()
    behind, prompt = Live(releases, store), Live(releases, store)
    store.put_changes([Change("i1", 0, None), Change("fresh", 2**60, TOLD), Change("i2", 0, None)])
    for live in (behind, prompt):
        live.follow()
        assert live.release.finds(["i1", "i2", "fresh"]).tolist() == [False, False, True]
    store.put_changes([Change("i1", 0, TOLD)])
    prompt.follow()
    assert prune(store, [releases.open(id) for id in releases.ids()], 0) == Pruned(gone=1, kept=2)
    overlay = prompt._overlay
    for live in (behind, prompt):
        live.follow()
        assert live.release.finds(["i1", "i2", "fresh"]).tolist() == [True, False, True]
    assert prompt._overlay is overlay, "who was not behind reads nothing anew"
    store.put_changes([Change("i3", 0, None)])
    for live in (behind, prompt, Live(releases, store)):
        live.follow()
        assert live.release.finds(["i1", "i2", "i3", "fresh"]).tolist() == [True, False, False, True]
    store.close()


@pytest.mark.parametrize("example", spec.examples("zhiyin.stores"), ids=lambda one: str(one)[:50])
def test_a_block_is_never_pruned_and_that_there_is_none_always(
    example: StoreSpec, placed: Placed, tmp_path: Path, releases: Releases
) -> None:
    """Who saw the block, and not the end of it, finds the item all the same; who never saw the block misses nothing."""
    store: Store = placed(example, tmp_path).open()
    behind = Live(releases, store)
    store.put_changes([Change(item, 0, None, blocked=True) for item in ("i1", "i2", "later")])
    behind.follow()
    assert behind.release.finds(["i1", "i2", "i3"]).tolist() == [False, False, True]
    store.put_changes([Change("i1", 0, None, blocked=False), Change("i2", 0, TOLD)])
    assert prune(store, [releases.open(id) for id in releases.ids()], 2**60) == Pruned(gone=2, kept=2)
    for live in (behind, Live(releases, store)):
        live.follow()
        assert live.release.finds(["i1", "i2", "i3"]).tolist() == [True, False, True]
        assert live.release.blocks(["i1", "i2", "i3", "later"]).tolist() == [False, True, False, False]
    store.close()


def gone_at_the_second_page(store: Store) -> Callable[[int, int], Page]:
    """The store's `changes`, whose second call finds no store."""
    changes, pages = store.changes, [0]

    def failing(after: int, limit: int) -> Page:
        pages[0] += 1
        if pages[0] == 2:
            raise OSError("gone")
        return changes(after, limit)

    return failing


def test_one_that_cannot_read_anew_keeps_what_it_knew_and_tries_again(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Memory().open()
    live = Live(releases, store)
    store.put_changes([Change("i1", 0, None), Change("i2", 0, None)])
    live.follow()
    store.put_changes([Change("i1", 0, TOLD)])
    store.prune_changes(store.changes(2, 9).changes)
    monkeypatch.setattr(store, "changes", gone_at_the_second_page(store))
    live.follow()
    assert (live.store_trouble, live.release.finds(["i1", "i2"]).tolist()) == ("gone", [False, False])
    live.follow()
    assert (live.store_trouble, live.release.finds(["i1", "i2"]).tolist()) == ("", [True, False])


def test_what_was_read_before_the_store_went_away_is_shown_when_it_is_back(
    releases: Releases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first page was applied when the second could not be read."""
    store = Memory().open()
    live = Live(releases, store)
    store.put_changes([Change("i1", 0, None)])
    monkeypatch.setattr(store, "changes", gone_at_the_second_page(store))
    live.follow()
    assert (live.store_trouble, live.release.finds(["i1"]).tolist()) == ("gone", [True])
    live.follow()
    assert (live.store_trouble, live.release.finds(["i1"]).tolist()) == ("", [False])


def test_what_every_release_has_may_go_and_nothing_else(release: Release) -> None:
    older = replace(
        release,
        items=Vocabulary.of([*(f"i{row}" for row in range(59)), "was"]),
        manifest={"items_as_of": "2025-12-01T00:00:00+00:00", "prepared": "2026-06-01T00:00:00+00:00"},
    )
    oldest, now = int(as_of(older)), int(as_of(older)) + 2 * MONTH_MS
    assert oldest == 1_764_547_200_000
    assert as_of(release) > oldest
    ago = oldest - MONTH_MS
    told = {
        "known to both, before": Change("i1", oldest, TOLD, 1),
        "known to both, later than one was made": Change("i2", oldest + 1, TOLD, 2),
        "new to one": Change("i59", ago, TOLD, 3),
        "new to both": Change("never", ago, TOLD, 4),
        "deleted, and in one": Change("was", ago, None, 5),
        "deleted, and in none": Change("never", ago, None, 6),
        "deleted later than one was made": Change("never", oldest + 1, None, 7),
    }
    may_go = absorbed(list(told.values()), [release, older], now)
    assert [name for name, change in told.items() if change in may_go] == [
        "known to both, before",
        "deleted, and in none",
    ]
    assert told["deleted, and in none"] not in absorbed(list(told.values()), [release, older], ago + MONTH_MS - 1)
    assert told["deleted, and in none"] in absorbed(list(told.values()), [release, older], ago + MONTH_MS)
    assert absorbed(list(told.values()), [release, replace(older, manifest={})], now) == []


def test_it_goes_through_the_whole_log_page_by_page(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PAGE", 3)
    store = Memory().open()
    store.put_changes([Change(f"i{at}", 0 if at % 2 else 2**60, TOLD) for at in range(20)])
    assert prune(store, [], 0) == Pruned(0, 0)
    assert prune(store, [release], 0) == Pruned(10, 10)
    assert [change.item for change in store.changes(0, 99).changes] == [f"i{at}" for at in range(0, 20, 2)]
    assert prune(store, [release], 0) == Pruned(0, 10)

"""Every channel on a release with fresh and deleted items over it."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from zhiyin import spec
from zhiyin.baselines.neighbourhoods import fitted
from zhiyin.channels.base import Channel
from zhiyin.channels.fresh import Fresh
from zhiyin.channels.item_to_item import ItemToItem
from zhiyin.channels.online import Online
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import Split
from zhiyin.release import Arrays, Release
from zhiyin.retriever import Request, Retriever
from zhiyin.service.overlay import Overlay
from zhiyin.stores.base import Change, Event
from zhiyin.stores.memory import Memory, MemoryStore

CHANNELS = [one for one in spec.examples("zhiyin.channels") if isinstance(one, Channel)]
GONE = ["i0", "i4", "i9", "n3"]


@pytest.fixture
def store() -> MemoryStore:
    store = Memory().open()
    store.append([Event("u", item, at) for at, item in enumerate(["i3", "i4", "n1", "i8"])])
    return store


def view(release: Release, data: Prepared, split: Split, channel: Channel) -> Release:
    """The release with the channel's tables, three fresh items, and four of all that are gone."""
    whole = replace(split, train=np.arange(len(data.events)), end=int(data.events.times.max()))

    def neighbourhoods(baseline: Mapping[str, Any], keep: int) -> Arrays:
        return fitted(baseline, data, whole, keep)

    tables = channel.tables(data, neighbourhoods)
    overlay = Overlay(replace(release, tables={"it": tables} if tables else {}))
    overlay.apply([Change(f"n{at}", 2**60, {"tags": ["a"]}, at + 1) for at in range(4)])
    overlay.apply([Change(item, 2**60, None, at + 9) for at, item in enumerate(GONE)])
    return overlay.view()


@pytest.mark.parametrize("channel", CHANNELS, ids=repr)
@pytest.mark.parametrize("filter", ["", 'tags any ["a", "c"]'])
def test_no_channel_finds_what_is_gone_and_an_event_with_a_fresh_item_breaks_none(
    channel: Channel, filter: str, release: Release, data: Prepared, split: Split, store: MemoryStore
) -> None:
    retriever = Retriever(store, online=Online(channels={"it": cast(Any, channel)}))
    asked = [Request(user=user, k=60, channels=("it",), filter=filter, explain=True) for user in ("u", "nobody")]
    for found in retriever.retrieve(view(release, data, split, channel), asked):
        assert found.items
        assert not set(GONE) & set(found.items)


def test_the_fresh_channel_begins_with_what_was_put_last(
    release: Release, data: Prepared, split: Split, store: MemoryStore
) -> None:
    retriever = Retriever(store, online=Online(channels={"it": Fresh()}))
    found = retriever.retrieve(view(release, data, split, Fresh()), [Request(k=5, channels=("it",))])[0]
    assert found.items[:3] == ["n2", "n1", "n0"]


def test_items_near_to_a_fresh_one_are_found(
    release: Release, data: Prepared, split: Split, store: MemoryStore
) -> None:
    retriever = Retriever(store, online=Online(channels={"it": ItemToItem()}))
    store.append([Event("v", "n1", 1)])
    found = retriever.retrieve(view(release, data, split, ItemToItem()), [Request(user="v", k=5, channels=("it",))])[0]
    assert {"n0", "n2"} <= set(found.items[:2])

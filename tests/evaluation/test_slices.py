"""Slices: what belongs to which part."""

from dataclasses import replace

import numpy as np
import pytest

from zhiyin.data.events import EventLog
from zhiyin.data.prepared import Prepared
from zhiyin.data.splits import LeaveLastOut
from zhiyin.data.tables import Table
from zhiyin.data.worlds import random_world
from zhiyin.errors import SpecError
from zhiyin.evaluation.slices import (
    Slice,
    column_slice,
    history_slice,
    named_slices,
    popularity_slice,
    warmth_slice,
)


def sizes(found: Slice) -> list[int]:
    return [int(part.sum()) for part in found.parts.values()]


def test_histories_from_none_to_heavy() -> None:
    data = random_world(3, 20, 60, seed=0)
    firsts = data.events.offsets[:3]
    starts = np.concatenate([firsts, firsts + 1, firsts + 5, firsts + 6, firsts + 50])
    found = history_slice(data.events, starts)
    assert [p.nonzero()[0].tolist() for p in found.parts.values()] == [
        [0, 1, 2],
        [3, 4, 5, 6, 7, 8],
        [9, 10, 11, 12, 13, 14],
        [],
    ]
    many = np.r_[np.full(19, firsts[0] + 10), firsts[0] + 50]
    assert sizes(history_slice(data.events, many)) == [0, 0, 19, 1]


def test_warm_and_cold_items() -> None:
    assert sizes(warmth_slice(np.array([0, 0, 1, 10, 11, 500]))) == [2, 2, 2]


def test_head_torso_and_tail_each_have_a_third_of_the_events() -> None:
    popularity = np.array([1] * 30 + [10] * 3 + [30] + [0])
    found = popularity_slice(popularity)
    assert [int(popularity[part].sum()) for part in found.parts.values()] == [30, 30, 30]
    assert list(found.parts) == ["head (1 items)", "torso (3 items)", "tail (31 items)"]
    assert (np.sum(list(found.parts.values()), axis=0) == 1).all()


def test_the_commonest_values_of_a_column_and_the_rest() -> None:
    column = np.array([*"aaabbcdefghijk", None], object)
    found = column_slice("letter", "queries", column)
    assert list(found.parts)[:2] == ["a", "b"]
    assert len(found.parts) == 9
    assert found.parts["other"].sum() == 15 - 3 - 2 - 6
    assert found.parts["other"][-1]


def test_a_value_called_other_is_not_the_rest() -> None:
    column = np.array([*["other"] * 5, *"aaabbcdefghijk"], object)
    found = column_slice("letter", "queries", column)
    assert next(iter(found.parts)) == "other"
    assert (found.parts["other"].sum(), found.parts["all others"].sum()) == (5, 19 - 5 - 3 - 2 - 5)


def test_tags_overlap() -> None:
    column = np.empty(3, object)
    column[:] = [["x", "y"], ["y"], []]
    found = column_slice("tags", "items", column)
    assert {name: part.tolist() for name, part in found.parts.items()} == {
        "y": [True, True, False],
        "x": [True, False, False],
        "other": [False, False, True],
    }


def test_text_with_several_values_is_sliced_by_each() -> None:
    column = np.array(["Drama|Crime", "Crime", "", None, "Drama | Drama"], object)
    found = column_slice("genres", "items", column)
    assert {name: part.tolist() for name, part in found.parts.items()} == {
        "Crime": [True, True, False, False, False],
        "Drama": [True, False, False, False, True],
        "other": [False, False, True, True, False],
    }
    assert list(column_slice("genres", "items", np.array(["a;b|c", "a"], object), ";").parts) == ["a", "b|c"]


def test_numbers_fall_into_quarters() -> None:
    found = column_slice("price", "items", np.r_[np.arange(100.0), np.nan])
    assert sizes(found) == [25, 25, 25, 25, 1]
    assert sizes(column_slice("stars", "items", np.array([1, 1, 2, 5]))) == [2, 1, 1]


def test_columns_are_found_by_name_and_a_wrong_one_names_the_nearest() -> None:
    data: Prepared = random_world(4, 6, 4, seed=0)
    starts = LeaveLastOut().split(data.events, True).test.starts
    log = data.events
    devices = Table.of({"device": [f"{'tv' if event in starts[:2] else 'phone'}" for event in range(len(log))]})
    table = Table.of({"country": ["cn", "fr", "fr", "ke"]})
    data = replace(data, user_table=table, events=EventLog(log.users, log.items, log.times, log.offsets, devices))
    found = named_slices(["country", "title", "device"], data, starts[::-1])
    assert [(one.name, one.of) for one in found] == [
        ("user's country", "queries"),
        ("item's title", "items"),
        ("event's device", "queries"),
    ]
    assert found[0].parts["fr"].tolist() == [False, True, True, False]
    assert found[0].parts["ke"].tolist() == [True, False, False, False]
    assert found[2].parts["tv"].tolist() == [False, False, True, True]
    with pytest.raises(SpecError, match=r"no column 'county' \(did you mean 'country'\?\).*country, title, device"):
        named_slices(["county"], data, starts)

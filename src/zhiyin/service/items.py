"""Items that come over the wire: checked whole before any is kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zhiyin.data.patch import misfit
from zhiyin.data.vocabulary import UNKNOWN
from zhiyin.errors import DataError, RequestError
from zhiyin.features.base import Feature
from zhiyin.features.schema import source
from zhiyin.release import Release
from zhiyin.service import wire
from zhiyin.service.overlay import item_vectors, separators
from zhiyin.stores.base import Card, Change
from zhiyin.stores.records import checked_cards, checked_changes

LONGEST_ID = 1024
"""Characters of an item's id."""

MOST_ITEMS = 10_000
"""Items in one body."""


@dataclass(frozen=True, slots=True)
class Put:
    """What is to be kept. `unread`: names of values that the release reads in no way."""

    changes: list[Change]
    cards: Mapping[str, Card]
    unread: list[str]


def checked(items: Sequence[wire.NewItem], release: Release, now: int) -> Put:
    """What a body says, once all of it can be kept and found. `now`: milliseconds since 1970.

    Raises `RequestError` naming the field: too many items, an item twice, a value that is no JSON, or none that its
    feature or attribute can have; an item of which the item tower would see nothing; a card that is too large.
    """
    if len(items) > MOST_ITEMS:
        raise RequestError(f"{len(items):,} items", where="items", expected=f"at most {MOST_ITEMS:,}")
    _refuse_twice(items)
    try:
        changes = checked_changes([Change(one.item_id, now, one.values) for one in items])
    except RequestError as error:
        raise _at_item(error, "changes") from None
    values = [change.values or {} for change in changes]
    _check_features(items, values, release)
    _check_attributes(values, release)
    _check_vectors(items, values, release)
    cards = {one.item_id: {**one.values, **one.card} for one in items}
    return Put(changes, _checked_cards(items, cards), _unread(values, release))


def checked_id(item: str) -> str:
    """The id of an item to delete. Raises `RequestError` for one that no item has."""
    if not 0 < len(item) <= LONGEST_ID:
        raise RequestError(f"an id of {len(item)} characters", where="item_id", expected=f"1 to {LONGEST_ID}")
    return checked_changes([Change(item, 0, None)])[0].item


def _refuse_twice(items: Sequence[wire.NewItem]) -> None:
    first: dict[str, int] = {}
    for at, one in enumerate(items):
        if first.setdefault(one.item_id, at) != at:
            raise RequestError(
                f"{one.item_id!r} is items[{first[one.item_id]}] too",
                where=f"items[{at}].item_id",
                expected="each once",
            )


def _at_item(error: RequestError, before: str) -> RequestError:
    where = error.where.replace(before, "items", 1).replace("].item", "].item_id", 1)
    return RequestError(error.what, where=where, expected=error.expected, remedy=error.remedy)


def _check_features(items: Sequence[wire.NewItem], values: Sequence[Mapping[str, Any]], release: Release) -> None:
    features = release.schema.item
    columns = list(dict.fromkeys(source(feature) for feature in features))
    for at, told in enumerate(values):
        if columns and all(told.get(name) is None for name in columns):
            raise RequestError(
                "nothing that the item tower reads",
                where=f"items[{at}].values",
                expected=f"at least one of {', '.join(columns)}",
            )
    if not columns:
        _refuse_strangers(items, release)
    for feature in features:
        _check_feature(feature, [told.get(source(feature)) for told in values])


def _refuse_strangers(items: Sequence[wire.NewItem], release: Release) -> None:
    rows = release.items.rows([one.item_id for one in items])
    strangers = np.flatnonzero((rows == UNKNOWN) | (rows >= release.built))
    if len(strangers):
        raise RequestError(
            f"{items[strangers[0]].item_id!r} is not in release {release.id}, whose item tower reads ids alone",
            where=f"items[{strangers[0]}].item_id",
            expected="an item of the catalogue",
            remedy="Train with item features ([features] item = …), and publish.",
        )


def _check_feature(feature: Feature, values: list[Any]) -> None:
    """Raises `RequestError` for the first of the values that training would have refused, too."""
    if _refusal(feature, values) is None:
        return
    for at, value in enumerate(values):
        error = _refusal(feature, [value])
        if error is not None:
            what = error.what.removeprefix("row 0 holds ")
            raise RequestError(what, where=f"items[{at}].values.{source(feature)}", expected=error.expected)


def _refusal(feature: Feature, values: list[Any]) -> DataError | None:
    column = np.empty(len(values), object)
    column[:] = values
    try:
        feature.fit(column)
    except DataError as error:
        return error
    return None


def _check_attributes(values: Sequence[Mapping[str, Any]], release: Release) -> None:
    if release.attributes is None:
        return
    parts = separators(release.schema)
    for name, kind in release.attributes.kinds.items():
        for at, told in enumerate(values):
            if misfit(kind, told.get(name), parts.get(name, "")):
                shown = repr(told[name])
                raise RequestError(
                    f"found {shown if len(shown) <= 40 else shown[:36] + '…'}",
                    where=f"items[{at}].values.{name}",
                    expected=f"{kind}, as in release {release.id}",
                )


def _check_vectors(items: Sequence[wire.NewItem], values: Sequence[Mapping[str, Any]], release: Release) -> None:
    rows = release.items.rows([one.item_id for one in items])
    vectors = item_vectors(release, np.where(rows < release.built, rows, np.int32(UNKNOWN)), values)
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = np.flatnonzero(~np.isfinite(np.einsum("md,md->m", vectors, vectors)))
    if len(wrong):
        raise RequestError("the item tower makes no vector of this", where=f"items[{wrong[0]}].values")


def _checked_cards(items: Sequence[wire.NewItem], cards: Mapping[str, Card]) -> dict[str, dict[str, Any]]:
    packed: dict[str, dict[str, Any]] = {}
    for at, one in enumerate(items):
        try:
            packed |= checked_cards({one.item_id: cards[one.item_id]})
        except RequestError as error:
            place = error.where.partition(f"card of item {one.item_id!r}")[2].strip()
            raise RequestError(error.what, where=f"items[{at}].card{place}", expected=error.expected) from None
    return packed


def _unread(values: Sequence[Mapping[str, Any]], release: Release) -> list[str]:
    read = {source(feature) for feature in release.schema.item}
    if release.attributes is not None:
        read |= set(release.attributes.kinds)
    return sorted({name for told in values for name in told} - read)

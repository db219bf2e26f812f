"""The tree of errors, and the one sentence that each is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhiyin import errors
from zhiyin.errors import (
    ChannelError,
    DataError,
    Failure,
    ReleaseError,
    RequestError,
    SearchError,
    SpecError,
    StoreError,
    TrainingError,
    UserError,
    ZhiyinError,
)


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert {kind for kind in UserError.__subclasses__() if kind.__module__ == "zhiyin.errors"} == {
        SpecError, DataError, RequestError,
    }  # fmt: skip
    assert set(Failure.__subclasses__()) == {
        TrainingError, SearchError, ChannelError, ReleaseError, StoreError,
    }  # fmt: skip
    assert set(ZhiyinError.__subclasses__()) == {UserError, Failure}
    assert errors.__doc__ is not None
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, ZhiyinError):
            assert name in errors.__doc__


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({}, "no column 'ts'"),
        ({"where": "log.csv"}, "log.csv: no column 'ts'"),
        ({"expected": "a time"}, "no column 'ts'; expected a time"),
        ({"remedy": "Set data.time."}, "no column 'ts'. Set data.time."),
        (
            {"where": "log.csv", "expected": "a time", "remedy": "Set data.time."},
            "log.csv: no column 'ts'; expected a time. Set data.time.",
        ),
    ],
)
def test_the_sentence(parts: dict[str, str], sentence: str) -> None:
    error = DataError("no column 'ts'", **parts)
    assert str(error) == sentence
    assert error.what == "no column 'ts'"
    assert {name: getattr(error, name) for name in parts} == parts


@pytest.mark.parametrize(
    ("inner", "outer", "place"),
    [
        (".dim", "model", "model.dim"),
        ("[0].dim", "features.user", "features.user[0].dim"),
        ("model.dim", "recipe.toml", "recipe.toml model.dim"),
        ("", "recipe.toml", "recipe.toml"),
        ("loss", "", "loss"),
        ("", "", ""),
    ],
)
def test_an_error_seen_from_further_out_says_where(inner: str, outer: str, place: str) -> None:
    error = SpecError("0", where=inner, expected="at least 1", remedy="Raise it.").at(outer)
    assert type(error) is SpecError
    assert error.where == place
    assert str(error) == (f"{place}: " if place else "") + "0; expected at least 1. Raise it."


@given(st.lists(st.sampled_from(["a.toml", "model", ".dim", "[3]"]), max_size=5))
def test_places_are_put_together_without_gaps(places: list[str]) -> None:
    error = SpecError("wrong")
    for place in places:
        error = error.at(place)
    assert "  " not in error.where
    assert error.where == error.where.strip()
    assert error.where.replace(" ", "") == "".join(reversed(places))


def test_a_request_error_has_its_status() -> None:
    assert RequestError("no").status == 400

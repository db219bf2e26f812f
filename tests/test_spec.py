"""Tables ↔ specs: every example of every package there and back, and each mistake told with its place."""

import dataclasses
import json
import pkgutil
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zhiyin
from zhiyin import spec
from zhiyin.data.splits import LeaveLastOut, Splitter, TimeCut
from zhiyin.errors import SpecError
from zhiyin.features.base import Feature
from zhiyin.features.categorical import Categorical
from zhiyin.features.numeric import Numeric
from zhiyin.features.schema import Schema
from zhiyin.spec import Home

PACKAGES = [
    f"zhiyin.{info.name}"
    for info in pkgutil.iter_modules(zhiyin.__path__)
    if info.ispkg and info.name not in ("service", "console")
]
EXAMPLES = [(package, example) for package in PACKAGES for example in spec.examples(package)]


def test_the_walk_finds_the_houses_packages() -> None:
    found = {package for package, _ in EXAMPLES}
    assert {f"zhiyin.{name}" for name in ("data", "features", "indexes", "learning", "models", "stores")} <= found


@pytest.mark.parametrize(("package", "example"), EXAMPLES, ids=lambda value: str(value)[:60])
def test_every_example_goes_through_a_table_and_back(package: str, example: Any) -> None:
    table = spec.used_table(example, package)
    again = json.loads(json.dumps(table))
    assert spec.used_build(again, package) == example
    assert spec.table(example) == {name: value for name, value in table.items() if name != "use"}
    module, _, name = table["use"].partition(":")
    assert (module, name) in spec.choices(package)
    whole = json.loads(json.dumps(spec.used_table(example, package, whole=True)))
    assert whole.keys() == {"use", *(field.name for field in dataclasses.fields(example) if field.init)}
    assert spec.used_build(whole, package) == example


@pytest.mark.parametrize(("package", "example"), EXAMPLES, ids=lambda value: str(value)[:60])
def test_a_misspelt_key_of_any_spec_names_the_nearest(package: str, example: Any) -> None:
    names = [f.name for f in dataclasses.fields(example) if f.init]
    table = {**spec.used_table(example, package), "zzz_unknown": 1}
    with pytest.raises(SpecError) as caught:
        spec.used_build(table, package, "place")
    assert str(caught.value).startswith(f"place: unknown key 'zzz_unknown'; expected one of {', '.join(names)}")
    if names:
        wrong = names[-1] + "x"
        with pytest.raises(SpecError, match=rf"unknown key '{wrong}' \(did you mean '{names[-1]}'\?\)"):
            spec.build(type(example), {wrong: 1})


def values_of(hint: Any) -> st.SearchStrategy[Any]:
    """Values that a field of a plain type may have."""
    plain: dict[Any, st.SearchStrategy[Any]] = {
        bool: st.booleans(),
        int: st.integers(-(2**40), 2**40),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: st.text(max_size=10),
        tuple[str, ...]: st.lists(st.text(max_size=5), max_size=4).map(tuple),
        tuple[int, ...]: st.lists(st.integers(1, 99), max_size=4).map(tuple),
        tuple[float, ...]: st.lists(st.floats(-9, 9), max_size=4).map(tuple),
    }
    return plain.get(hint, st.nothing())


@pytest.mark.parametrize(("package", "example"), EXAMPLES, ids=lambda value: str(value)[:60])
@settings(max_examples=25)
@given(st.data())
def test_any_setting_that_a_spec_accepts_comes_back(package: str, example: Any, data: st.DataObject) -> None:
    hints = {f.name: f.type for f in dataclasses.fields(example) if f.init}
    hints = {name: hint for name, hint in hints.items() if not values_of(hint).is_empty}
    if not hints:
        return
    changed = data.draw(st.fixed_dictionaries({}, optional={name: values_of(hint) for name, hint in hints.items()}))
    try:
        wanted = dataclasses.replace(example, **changed)
    except SpecError:
        return
    assert spec.used_build(json.loads(json.dumps(spec.used_table(wanted, package))), package) == wanted


# a small spec with every kind of field


class Shape(Protocol):
    def area(self) -> float: ...


@dataclass(frozen=True)
class Inner:
    depth: int = 1

    def __post_init__(self) -> None:
        if self.depth < 0:
            raise SpecError(f"{self.depth}", where=".depth", expected="at least 0")


@dataclass(frozen=True)
class Outer:
    name: str
    size: int = 3
    rate: float = 0.5
    on: bool = False
    mode: Literal["fast", "slow"] = "fast"
    path: Path = Path("here")
    parts: tuple[int, ...] = ()
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = ()
    days: float | None = None
    either: int | str = 0
    settings: dict[str, int] = field(default_factory=dict)
    splitter: Annotated[Splitter, Home("zhiyin.data")] = LeaveLastOut()
    perhaps: Annotated[Splitter, Home("zhiyin.data")] | None = None
    derived: int = field(default=7, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "derived", self.size)


FULL = """
name = "a"
size = 4
rate = 2
on = true
mode = "slow"
path = "there/x"
parts = [1, 2]
inner = { depth = 2 }
inners = [{ depth = 3 }, {}]
days = 7
either = "x"
settings = { a = 1 }
splitter = { use = "splits:TimeCut", test = 0.2 }
perhaps = { use = "splits:LeaveLastOut" }
"""


def test_every_kind_of_field_is_converted() -> None:
    built = spec.build(Outer, tomllib.loads(FULL))
    assert built == Outer(
        name="a", size=4, rate=2.0, on=True, mode="slow", path=Path("there/x"), parts=(1, 2), inner=Inner(2),
        inners=(Inner(3), Inner()), days=7.0, either="x", settings={"a": 1}, splitter=TimeCut(test=0.2),
        perhaps=LeaveLastOut(),
    )  # fmt: skip
    assert isinstance(built.rate, float)
    assert isinstance(built.days, float)


def test_a_full_spec_comes_back_from_its_table_and_defaults_are_left_out() -> None:
    built = spec.build(Outer, tomllib.loads(FULL))
    assert spec.build(Outer, json.loads(json.dumps(spec.table(built)))) == built
    assert spec.table(Outer("a")) == {"name": "a"}
    assert spec.table(built)["splitter"] == {"use": "splits:TimeCut", "test": 0.2}
    assert spec.table(built)["perhaps"] == {"use": "splits:LeaveLastOut"}
    whole = json.loads(json.dumps(spec.table(built, whole=True)))
    assert whole["splitter"] == {"use": "splits:TimeCut", "test": 0.2, "validation": 0.1, "unit": "share"}
    assert spec.build(Outer, whole) == built


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "top: 'name' is missing. Add it: name = …"),
    ({"nam": "a"}, "top: unknown key 'nam' (did you mean 'name'?); expected one of name, size, rate, "),
    ({"name": 3}, "top.name: 3 is a whole number; expected a string"),
    ({"size": "3"}, "top.size: '3' is a string; expected a whole number"),
    ({"size": 3.5}, "top.size: 3.5 is a number; expected a whole number"),
    ({"size": True}, "top.size: True is a truth value; expected a whole number"),
    ({"rate": True}, "top.rate: True is a truth value; expected a number"),
    ({"rate": "x"}, "top.rate: 'x' is a string; expected a number"),
    ({"rate": float("nan")}, "top.rate: nan is no number; expected a number"),
    ({"on": 1}, "top.on: 1 is a whole number; expected true or false"),
    ({"mode": "fst"}, "top.mode: 'fst' (did you mean 'fast'?); expected one of 'fast', 'slow'"),
    ({"path": 3}, "top.path: 3 is a whole number; expected a path"),
    ({"parts": 3}, "top.parts: 3 is a whole number; expected a list"),
    ({"parts": [1, "2"]}, "top.parts[1]: '2' is a string; expected a whole number"),
    ({"inner": 3}, "top.inner: 3 is a whole number; expected a table"),
    ({"inner": {"deep": 3}}, "top.inner: unknown key 'deep' (did you mean 'depth'?); expected one of depth"),
    ({"inner": {"depth": "x"}}, "top.inner.depth: 'x' is a string; expected a whole number"),
    ({"inner": {"depth": -1}}, "top.inner.depth: -1; expected at least 0"),
    ({"inners": [{}, {"depth": -1}]}, "top.inners[1].depth: -1; expected at least 0"),
    ({"inners": [{}, 7]}, "top.inners[1]: 7 is a whole number; expected a table"),
    ({"days": "x"}, "top.days: 'x' is a string; expected a number"),
    ({"either": 1.5}, "top.either: 1.5 is a number; expected a whole number or a string"),
    ({"settings": {"a": "x"}}, "top.settings.a: 'x' is a string; expected a whole number"),
    ({"settings": 1}, "top.settings: 1 is a whole number; expected a table"),
    ({"splitter": 1}, "top.splitter: 1 is a whole number; expected a table with a 'use' key"),
    ({"splitter": {}}, "top.splitter: 'use' is missing; expected module:Class, such as 'splits:LeaveLastOut'"),
    ({"splitter": {"use": 3}}, "top.splitter: use = 3; expected module:Class, such as 'splits:LeaveLastOut'"),
    (
        {"splitter": {"use": "LeaveLastOut"}},
        "top.splitter: use = 'LeaveLastOut' (did you mean 'splits:LeaveLastOut'?); expected module:Class, such as ",
    ),
    ({"splitter": {"use": "timecut"}}, "top.splitter: use = 'timecut' (did you mean 'splits:TimeCut'?); expected "),
    ({"splitter": {"use": "bag"}}, "top.splitter: use = 'bag'; expected module:Class, such as "),
    (
        {"splitter": {"use": "splits:TimeCat"}},
        "top.splitter: use = 'splits:TimeCat' is unknown (did you mean 'splits:TimeCut'?); expected one of "
        "splits:LeaveLastOut, splits:TimeCut, splits:Marked",
    ),
    (
        {"splitter": {"use": "split:TimeCut"}},
        "top.splitter: use = 'split:TimeCut' is unknown (did you mean 'splits:TimeCut'?); expected one of ",
    ),
    (
        {"splitter": {"use": "splits:DAY"}},
        "top.splitter: use = 'splits:DAY' is unknown",
    ),
    (
        {"splitter": {"use": "splits:HeldOut"}},
        "top.splitter: use = 'splits:HeldOut' is no Splitter: it has no split; expected one of splits:LeaveLastOut, "
        "splits:TimeCut",
    ),
    (
        {"perhaps": {"use": "zhiyin.features.bag:Bag"}},
        "top.perhaps: use = 'zhiyin.features.bag:Bag' is no Splitter: it has no split; expected one of ",
    ),
    (
        {"splitter": {"use": "nowhere.at.all:Thing"}},
        "top.splitter: use = 'nowhere.at.all:Thing' is unknown; expected one of splits:LeaveLastOut, splits:TimeCut, "
        "splits:Marked, or a dataclass in a module of yours",
    ),
    ({"splitter": {"use": "..:Thing"}}, "top.splitter: use = '..:Thing'; expected module:Class, such as "),
    ({"splitter": {"use": ":Thing"}}, "top.splitter: use = ':Thing'; expected module:Class, such as "),
    (
        {"splitter": {"use": "splits:"}},
        "top.splitter: use = 'splits:' (did you mean 'splits:LeaveLastOut'?); expected ",
    ),
    (
        {"splitter": {"use": "splits:TimeCut", "tets": 1}},
        "top.splitter: unknown key 'tets' (did you mean 'test'?); expected one of test, validation, unit",
    ),
    (
        {"splitter": {"use": "splits:TimeCut", "unit": "weeks"}},
        "top.splitter.unit: 'weeks'",
    ),
    ({"derived": 3}, "top: unknown key 'derived'"),
]


@pytest.mark.parametrize(("table", "words"), WRONG, ids=[str(table)[:60] for table, _ in WRONG])
def test_a_mistake_is_told_with_its_place(table: dict[str, Any], words: str) -> None:
    given = table if not table or "nam" in table else {"name": "a", **table}
    with pytest.raises(SpecError) as caught:
        spec.build(Outer, given, "top")
    assert str(caught.value).startswith(words)


def test_a_place_is_not_needed() -> None:
    with pytest.raises(SpecError, match=r"^size: 'x' is a string; expected a whole number$"):
        spec.build(Outer, {"name": "a", "size": "x"})
    with pytest.raises(SpecError, match=r"^'name' is missing"):
        spec.build(Outer, {})


def test_a_place_deep_in_features_is_told() -> None:
    user = [{"use": "numeric:Numeric", "name": "a"}, {"use": "categorical:Categorical", "name": "b", "dim": 0}]
    with pytest.raises(SpecError, match=r"^features\.user\[1\]: dim = 0, at_least = 1; expected both at least 1$"):
        spec.build(Schema, {"user": user}, "features")
    with pytest.raises(SpecError, match=r"^features\.user\[0\]: use = 'numeric:Nimeric' is unknown \(did you mean"):
        spec.build(Schema, {"user": [{"use": "numeric:Nimeric", "name": "a"}]}, "features")


def test_a_class_of_another_package_is_found_by_its_whole_name() -> None:
    table = spec.used_table(Categorical("c"), "zhiyin.data")
    assert table["use"] == "zhiyin.features.categorical:Categorical"
    assert spec.used_build(table, "zhiyin.data") == Categorical("c")


def test_a_package_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "__init__.py").write_text("")
    (tmp_path / "theirs" / "tower.py").write_text("import torch_something_else\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(SpecError) as caught:
        spec.resolve("theirs.tower:Tower", "zhiyin.models", "model")
    assert str(caught.value) == (
        "model: use = 'theirs.tower:Tower' needs the package 'torch_something_else', which is not installed. "
        "Install zhiyin[train]."
    )


def test_choices_are_the_specs_of_a_kind() -> None:
    features = spec.choices("zhiyin.features", Feature)
    assert ("numeric", "Numeric") in features
    assert features == spec.choices("zhiyin.features")
    assert spec.choices("zhiyin.features", Splitter) == []
    assert spec.choices("zhiyin.data", Splitter) == [
        ("splits", "LeaveLastOut"),
        ("splits", "TimeCut"),
        ("splits", "Marked"),
    ]
    assert spec.choices("zhiyin.data", Shape) == []


def test_the_nearest_word_is_told_only_when_it_is_near() -> None:
    assert spec.nearest("modle", ["model", "loss"]) == " (did you mean 'model'?)"
    assert spec.nearest("xyz", ["model", "loss"]) == ""
    assert spec.nearest("xyz", []) == ""


def test_the_protocols_members_include_its_fields() -> None:
    with pytest.raises(SpecError, match=r"is no Feature: it has no name and no column and no encoding"):
        spec.resolve("zhiyin.data.splits:TimeCut", "zhiyin.features", "here", Feature)
    assert spec.resolve("numeric:Numeric", "zhiyin.features", "here", Feature) is Numeric

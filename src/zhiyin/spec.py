"""A TOML table becomes a frozen dataclass, and back.

A spec is all the configuration a thing has. Where several things can stand in one place, the table says which by
`use = "module:Class"`; a module without a dot is looked up in that place's home package:

    [model]
    use = "youtube_dnn:YouTubeDNN"      # zhiyin.models.youtube_dnn
    dim = 64

An unknown key is an error that names the nearest one; a value of the wrong type says what was expected.
"""

import dataclasses
import difflib
import importlib
import math
import pkgutil
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypeVar, Union, get_args, get_origin

from zhiyin.errors import SpecError

Spec = TypeVar("Spec")

_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", Path: "a path"}


@dataclasses.dataclass(frozen=True, slots=True)
class Home:
    """Marks a field, by `Annotated[Protocol, Home(package)]`, whose table chooses its class with `use`."""

    package: str


def build(kind: type[Spec], table: Mapping[str, object], where: str = "") -> Spec:
    """The `kind` that `table` describes.

    Raises `SpecError` with `where` and the key: for an unknown key, a missing one, a wrong type, or what the spec's own
    `__post_init__` refuses.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    fields = {f.name: f for f in dataclasses.fields(typing.cast(Any, kind)) if f.init}
    for key in table:
        if key not in fields:
            raise SpecError(
                f"unknown key '{key}'{nearest(key, fields)}", where=where, expected=f"one of {', '.join(fields)}"
            )
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _convert(hints[name], table[name], f"{where}.{name}" if where else name)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise SpecError(f"'{name}' is missing", where=where, remedy=f"Add it: {name} = …")
    try:
        return kind(**values)
    except SpecError as error:
        raise error.at(where) from None


def resolve(use: str, package: str, where: str = "", kind: type[Any] = object) -> type[Any]:
    """The class that `use = "module:Class"` names; a module without a dot is one of `package`'s.

    `kind`: the protocol it must have the members of. Raises `SpecError` for what is not there, or is another thing.
    """
    module, _, name = use.partition(":")
    full = module if "." in module else f"{package}.{module}"
    if not name or not all(part.isidentifier() for part in full.split(".")):
        raise SpecError(
            f"use = {use!r}{_meant(use, package, kind)}",
            where=where,
            expected=f"module:Class, such as {_example(package, kind)}",
        )
    try:
        found = getattr(importlib.import_module(full), name, None)
    except ModuleNotFoundError as error:
        if error.name is not None and not full.startswith(error.name):
            raise SpecError(
                f"use = {use!r} needs the package '{error.name}', which is not installed",
                where=where,
                remedy="Install zhiyin[train]." if error.name.startswith(("torch", "scipy", "safetensors")) else "",
            ) from None
        found = None
    if not dataclasses.is_dataclass(found) or not isinstance(found, type):
        known = [f"{m}:{c}" for m, c in choices(package, kind)]
        raise SpecError(
            f"use = {use!r} is unknown{nearest(use, known)}",
            where=where,
            expected=f"one of {', '.join(known)}" + (", or a dataclass in a module of yours" if "." in module else ""),
        )
    if lacking := _lacking(found, kind):
        known = [f"{m}:{c}" for m, c in choices(package, kind)]
        raise SpecError(
            f"use = {use!r} is no {kind.__name__}: it has no {' and no '.join(lacking)}",
            where=where,
            expected=f"one of {', '.join(known)}",
        )
    return found


def _meant(use: str, package: str, kind: type[Any]) -> str:
    """` (did you mean 'x'?)` for the module or the class alone."""
    known = {word.lower(): f"{m}:{c}" for m, c in reversed(choices(package, kind)) for word in (m, c)}
    near = known.get(use.strip(":").lower())
    return f" (did you mean '{near}'?)" if near else ""


def choices(package: str, kind: type[Any] = object) -> list[tuple[str, str]]:
    """(module, class) of every spec in `package` that is of a `kind`: each module says which are its own by its
    `EXAMPLES`."""
    found: dict[tuple[str, str], None] = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        for example in getattr(module, "EXAMPLES", ()):
            if not _lacking(type(example), kind):
                found[(info.name, type(example).__name__)] = None
    return list(found)


def examples(package: str) -> list[Any]:
    """The `EXAMPLES` of every module in `package`: what the contract tests run on."""
    return [
        example
        for info in pkgutil.iter_modules(importlib.import_module(package).__path__)
        for example in getattr(importlib.import_module(f"{package}.{info.name}"), "EXAMPLES", ())
    ]


def table(spec: object, *, whole: bool = False) -> dict[str, Any]:
    """The table that `build` makes `spec` from, `use` where its place needs one. Defaults are left out, unless it is to
    be `whole`: what is kept in a file means the same when defaults have moved."""
    hints = typing.get_type_hints(type(spec), include_extras=True)
    result: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, spec)):
        value = getattr(spec, field.name)
        if not field.init or (_is_default(field, value) and not whole):
            continue
        result[field.name] = _plain(value, _home(hints[field.name]), whole)
    return result


def paths(spec: object) -> dict[str, Path]:
    """Those of a spec's values that are paths, by name."""
    values = {field.name: getattr(spec, field.name) for field in dataclasses.fields(typing.cast(Any, spec))}
    return {name: value for name, value in values.items() if isinstance(value, Path)}


def used_table(spec: object, package: str, *, whole: bool = False) -> dict[str, Any]:
    """`table(spec)` with the `use` that finds its class again from `package`."""
    return {"use": _use(type(spec), package), **table(spec, whole=whole)}


def used_build(table: Mapping[str, object], package: str, where: str = "", kind: type[Any] = object) -> Any:
    """The spec whose class the table's own `use` names; `kind`: the protocol it must have the members of."""
    use = table.get("use")
    if not isinstance(use, str):
        raise SpecError(
            "'use' is missing" if use is None else f"use = {use!r}",
            where=where,
            expected=f"module:Class, such as {_example(package, kind)}",
        )
    rest = {key: value for key, value in table.items() if key != "use"}
    return build(resolve(use, package, where, kind), rest, where)


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)`, or nothing when no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean '{near[0]}'?)" if near else ""


def _convert(hint: Any, value: object, where: str) -> Any:
    package = _home(hint)
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        inner = tuple(a for a in arguments if a is not type(None))
        return _convert(_at_home(inner[0], package), value, where) if len(inner) == 1 else _first(inner, value, where)
    if origin is Literal:
        if value not in arguments:
            raise SpecError(
                f"{value!r}{nearest(str(value), map(str, arguments))}",
                where=where,
                expected=f"one of {', '.join(map(repr, arguments))}",
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise SpecError(_found(value), where=where, expected="a list")
        element = _at_home(arguments[0], package)
        return tuple(_convert(element, v, f"{where}[{i}]") for i, v in enumerate(value))
    if package:
        if not isinstance(value, Mapping):
            raise SpecError(_found(value), where=where, expected="a table with a 'use' key")
        return used_build(value, package, where, hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, Mapping):
            raise SpecError(_found(value), where=where, expected="a table")
        return build(hint, value, where)
    if origin is not None and isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise SpecError(_found(value), where=where, expected="a table")
        return {str(k): _convert(arguments[1], v, f"{where}.{k}") for k, v in value.items()}
    return _convert_plain(hint, value, where)


def _first(hints: tuple[Any, ...], value: object, where: str) -> Any:
    for hint in hints:
        try:
            return _convert(hint, value, where)
        except SpecError:
            continue
    names = " or ".join(_NAMES.get(hint, str(hint)) for hint in hints)
    raise SpecError(_found(value), where=where, expected=names)


def _convert_plain(hint: Any, value: object, where: str) -> Any:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in _NAMES and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise SpecError(_found(value), where=where, expected=_NAMES[hint])
    if isinstance(value, float) and math.isnan(value):
        raise SpecError("nan is no number", where=where, expected=_NAMES[float])
    return value


def _found(value: object) -> str:
    kind = {bool: "a truth value", int: "a whole number", float: "a number", str: "a string", list: "a list"}
    return f"{value!r} is {kind.get(type(value), 'a table' if isinstance(value, Mapping) else type(value).__name__)}"


def _home(hint: Any) -> str:
    if get_origin(hint) in (Union, types.UnionType):
        return next((home for one in get_args(hint) if (home := _home(one))), "")
    if get_origin(hint) is Annotated:
        return next((m.package for m in hint.__metadata__ if isinstance(m, Home)), "")
    return ""


def _at_home(hint: Any, package: str) -> Any:
    return Annotated[hint, Home(package)] if package else hint


def _lacking(found: type[Any], kind: type[Any]) -> list[str]:
    """The members of a protocol that a class has not."""
    there = {*dir(found), *(f.name for f in dataclasses.fields(found))}
    bases = [base for base in kind.__mro__ if getattr(base, "_is_protocol", False) and base is not Protocol]
    wanted = dict.fromkeys(name for base in bases for name in (*vars(base), *base.__annotations__))
    return [name for name in wanted if (name == "__call__" or not name.startswith("_")) and name not in there]


def _use(kind: type[Any], package: str) -> str:
    module = kind.__module__
    return f"{module.removeprefix(package + '.')}:{kind.__name__}"


def _example(package: str, kind: type[Any]) -> str:
    known = choices(package, kind)
    return f"'{known[0][0]}:{known[0][1]}'" if known else "'my.module:MyClass'"


def _is_default(field: "dataclasses.Field[Any]", value: object) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False


def _plain(value: Any, package: str, whole: bool) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(v, package, whole) for v in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return used_table(value, package, whole=whole) if package else table(value, whole=whole)
    if isinstance(value, Mapping):
        return {k: _plain(v, "", whole) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value

"""The recipe: one TOML file that says all of it. Tables are the specs of the stages they are named after."""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from zhiyin import spec
from zhiyin.channels.online import Online
from zhiyin.data.sources import Source
from zhiyin.data.splits import LeaveLastOut, Splitter
from zhiyin.errors import SpecError
from zhiyin.features.schema import Schema
from zhiyin.indexes.auto import AUTO, Auto
from zhiyin.indexes.base import IndexSpec
from zhiyin.indexes.hnsw import HNSW
from zhiyin.ranges import Ranges, parse
from zhiyin.releases import Releases, Repository
from zhiyin.service.app import Service
from zhiyin.service.stream import Stream
from zhiyin.stores.base import StoreSpec
from zhiyin.stores.lmdb import LMDB

if TYPE_CHECKING:
    from zhiyin.learning.fit import Plan
    from zhiyin.publish import Promise

TABLES = {
    "home": "the folder for everything zhiyin makes",
    "data": "where the events are, and their columns",
    "features": "what the towers see beside the history",
    "split": "what is held out",
    "model": "the two towers",
    "negatives": "what a positive is compared with",
    "loss": "how",
    "optimizer": "step sizes",
    "training": "how long, how much at a time",
    "sweep": "what `zhiyin sweep` searches",
    "index": "how vectors are searched",
    "promise": "what an index must show before it goes live",
    "releases": "where releases are published, and who signs them",
    "store": "where profiles, events and cards are kept",
    "stream": "events that come through Redis, without HTTP",
    "online": "which channels find candidates, and how they are merged",
    "service": "the HTTP endpoint",
}

_PLAN = ("model", "negatives", "loss", "optimizer", "training")


@dataclass(frozen=True)
class Recipe:
    """A recipe as read: paths made absolute, each table turned into its spec when asked for.

    The training tables need `zhiyin[train]`; the others work where only serving is installed.
    """

    path: Path
    tables: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Raises `SpecError` for a file that is missing or no TOML, an unknown table or key, or a wrong value."""
        path = Path(path).absolute()
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
        except FileNotFoundError:
            raise SpecError(
                "there is no such recipe",
                where=str(path),
                remedy="`zhiyin init EVENTS` writes one from your own files.",
            ) from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SpecError(f"not TOML: {error}", where=str(path)) from None
        except OSError as error:
            raise SpecError(f"the recipe cannot be read: {error.strerror}", where=str(path)) from None
        return cls.of(tables, path)

    @classmethod
    def of(cls, tables: Mapping[str, Any], path: Path) -> Self:
        """The recipe of these tables, as if read from `path`. Raises like `read`."""
        for key in tables:
            if key not in TABLES:
                near = spec.nearest(key, TABLES)
                raise SpecError(f"unknown key '{key}'{near}", where=path.name, expected=f"one of {', '.join(TABLES)}")
        recipe = cls(path, tables)
        _ = recipe.home, recipe.source, recipe.schema, recipe.splitter, recipe.index, recipe.store, recipe.stream
        _ = recipe.online, recipe.service, recipe.ranges, recipe.releases
        return recipe

    @property
    def home(self) -> Path:
        """The folder for everything zhiyin makes; beside the recipe unless it says otherwise."""
        home = self.tables.get("home", self.path.stem)
        if not isinstance(home, str):
            raise SpecError(f"home = {home!r}", where=self.path.name, expected="a path in quotes")
        return self._resolve(Path(home))

    @property
    def source(self) -> Source:
        if "data" not in self.tables:
            raise SpecError("the table [data] is missing", where=self.path.name, remedy="Add it, with events = …")
        source = self._build(Source, "data")
        items, users = (None if path is None else self._resolve(path) for path in (source.items, source.users))
        return replace(source, events=self._resolve(source.events), items=items, users=users)

    @property
    def schema(self) -> Schema:
        return self._build(Schema, "features")

    @property
    def splitter(self) -> Splitter:
        splitter: Splitter = self._used("split", "zhiyin.data", Splitter, LeaveLastOut())
        return splitter

    @property
    def plan(self) -> "Plan":
        """Model, negatives, loss, optimiser, training. The promise is checked too: not after hours of training."""
        with self._needing("training"):
            from zhiyin.learning.fit import Plan
        if "model" not in self.tables:
            raise SpecError(
                "the table [model] is missing",
                where=self.path.name,
                remedy='Add it, with use = "youtube_dnn:YouTubeDNN".',
            )
        _ = self.promise
        plan: Plan = self._at(lambda: spec.build(Plan, {k: self.tables[k] for k in _PLAN if k in self.tables}))
        return plan

    @property
    def index(self) -> IndexSpec | Auto:
        """`index = "auto"` stands for the table `[index]` with `use = "auto:Auto"`: publish tunes one. Its paths are
        relative to the recipe, and absolute in a release."""
        if self.tables.get("index") == "auto":
            return Auto()
        tuned = "index" in self.tables and self._table("index").get("use") == AUTO
        index: Any = self._used("index", "zhiyin.indexes", object if tuned else IndexSpec, HNSW())
        resolved: IndexSpec | Auto = replace(
            index, **{n: self._resolve(p).absolute() for n, p in spec.paths(index).items()}
        )
        return resolved

    @property
    def promise(self) -> "Promise":
        with self._needing("publishing"):
            from zhiyin.publish import Promise
        return self._build(Promise, "promise")

    @property
    def store(self) -> StoreSpec:
        """Its paths are relative to the recipe; LMDB lies in `home`, unless it says otherwise."""
        if "store" not in self.tables:
            return LMDB(path=self.home / "store")
        store: Any = self._used("store", "zhiyin.stores", StoreSpec, None)
        paths = {name: self._resolve(path) for name, path in spec.paths(store).items()}
        if isinstance(store, LMDB) and "path" not in self._table("store"):
            paths["path"] = self.home / "store"
        resolved: StoreSpec = replace(store, **paths)
        return resolved

    @property
    def online(self) -> Online:
        return self._build(Online, "online")

    @property
    def stream(self) -> Stream:
        return self._build(Stream, "stream")

    @property
    def service(self) -> Service:
        return self._build(Service, "service")

    @property
    def ranges(self) -> Ranges:
        """What a sweep searches; empty without `[sweep]`."""
        ranges: Ranges = self._at(lambda: parse(self._table("sweep")))
        return ranges

    @property
    def prepared(self) -> Path:
        return self.home / "prepared"

    @property
    def run(self) -> Path:
        return self.home / "run"

    @property
    def releases(self) -> Releases:
        """In `home`, unless it says otherwise; paths are relative to the recipe."""
        where = self._build(Repository, "releases")
        root = where.root if not where.root or "://" in where.root else str(self._resolve(Path(where.root)))
        sign = where.sign and self._resolve(where.sign)
        return replace(where, root=root, sign=sign, trust=tuple(map(self._resolve, where.trust))).open(
            self.home / "releases"
        )

    def text(self) -> str:
        """The recipe as TOML, a line for each key."""
        plain = {name: value for name, value in self.tables.items() if not isinstance(value, Mapping)}
        lines = [f"{_key(name)} = {_toml(value)}" for name, value in plain.items()]
        for name, table in self.tables.items():
            if name not in plain:
                lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_toml(value)}" for key, value in table.items())]
        return "\n".join(lines) + "\n"

    def _resolve(self, path: Path) -> Path:
        """`~` is a home folder; relative paths begin at the recipe. Raises `SpecError` for the home of nobody."""
        try:
            return self.path.parent / path.expanduser()
        except RuntimeError:
            raise SpecError(f"there is no home folder {path.parts[0]}", where=self.path.name) from None

    def _build(self, kind: type[spec.Spec], name: str) -> spec.Spec:
        table = self._table(name)
        built: spec.Spec = self._at(lambda: spec.build(kind, table, name))
        return built

    def _used(self, name: str, package: str, kind: type[Any], default: Any) -> Any:
        if name not in self.tables:
            return default
        table = self._table(name)
        return self._at(lambda: spec.used_build(table, package, name, kind))

    def _table(self, name: str) -> Mapping[str, object]:
        table = self.tables.get(name, {})
        if not isinstance(table, Mapping):
            raise SpecError(f"{name} = {table!r}", where=self.path.name, expected=f"a table: [{name}]")
        return table

    @contextmanager
    def _needing(self, what: str) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise SpecError(
                f"{what} needs the package '{error.name}', which is not installed",
                where=self.path.name,
                remedy="pip install 'zhiyin[train]'",
            ) from None

    def _at(self, make: Callable[[], Any]) -> Any:
        try:
            return make()
        except SpecError as error:
            raise error.at(self.path.name) from None


def _toml(value: object) -> str:
    """A value as TOML writes it within a line."""
    if isinstance(value, Mapping):
        return (
            "{ " + ", ".join(f"{_key(key)} = {_toml(inner)}" for key, inner in value.items()) + " }" if value else "{}"
        )
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(inner) for inner in value) + "]"
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value)


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)

"""What each query of an evaluation found, kept so that two runs can be compared by the same queries."""

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from zhiyin.data.events import Times
from zhiyin.data.prepared import Prepared
from zhiyin.errors import DataError
from zhiyin.evaluation.metrics import Counts, Hit
from zhiyin.evaluation.report import SEEN_STAYS, Measured, per_query
from zhiyin.evaluation.significance import Difference, differences
from zhiyin.spec import nearest


@dataclass(frozen=True, slots=True)
class Saved:
    """n queries: `users` [n] ids, `times` [n], `counts` [n] targets; by scorer, `hits` [n, k]."""

    protocol: str
    ks: tuple[int, ...]
    users: np.ndarray
    times: Times
    counts: Counts
    hits: Mapping[str, Hit]

    @classmethod
    def of(cls, measured: Measured, data: Prepared) -> Self:
        ids = data.users.ids()
        return cls(
            measured.report.words,
            measured.ks,
            np.array([ids[row] for row in measured.users]),
            np.asarray(data.events.times[measured.asked.starts]),
            measured.targets.counts,
            {name: one.hits for name, one in measured.ranked.items()},
        )

    def save(self, path: Path) -> None:
        """Write one .npz file, or replace it."""
        arrays = {f"hits {name}": np.packbits(hits, axis=1) for name, hits in self.hits.items()}
        part = path.with_name(f".{path.name}.part.npz")
        np.savez_compressed(
            part,
            allow_pickle=False,
            protocol=np.array(self.protocol),
            ks=np.array(self.ks),
            users=self.users,
            times=self.times,
            counts=self.counts,
            **arrays,
        )
        part.replace(path)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Raises `DataError` where there is no such file or it is none of an evaluation."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls._read(arrays)
        except FileNotFoundError:
            raise DataError(
                "there is no saved evaluation here", where=str(path), remedy="Run `zhiyin evaluate RECIPE` first."
            ) from None
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"not a saved evaluation: {error}", where=str(path)) from None

    @classmethod
    def _read(cls, arrays: Any) -> Self:
        ks = tuple(int(k) for k in arrays["ks"])
        return cls(
            str(arrays["protocol"]),
            ks,
            arrays["users"],
            arrays["times"],
            arrays["counts"],
            {
                name.removeprefix("hits "): np.unpackbits(arrays[name], axis=1, count=max(ks)).astype(bool)
                for name in arrays.files
                if name.startswith("hits ")
            },
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """The second run's metrics less the first's, on the same queries. `first`, `second`: the scorers compared."""

    first: str
    second: str
    queries: int
    metrics: Mapping[str, Difference]

    def to_json(self) -> dict[str, Any]:
        metrics = {name: {field: getattr(one, field) for field in one.__slots__} for name, one in self.metrics.items()}
        return {"first": self.first, "second": self.second, "queries": self.queries, "metrics": metrics}


def compare(first: Saved, second: Saved, scorers: tuple[str, str] = ("", ""), *, seed: int = 0) -> Comparison:
    """Paired, query by query; "" is a run's first scorer, its model.

    Raises `DataError` where the two did not ask the same queries, have no k in common, or have no such scorer.
    """
    _refuse_others(first, second)
    ks = [k for k in first.ks if k in second.ks]
    if not ks:
        raise DataError(
            f"one run has k = {', '.join(map(str, first.ks))}, the other {', '.join(map(str, second.ks))}",
            where="compare",
            expected="a common k",
            remedy="Evaluate both with the same -k.",
        )
    names = _scorer(first, scorers[0]), _scorer(second, scorers[1])
    one = per_query(first.hits[names[0]], first.counts, ks)
    two = per_query(second.hits[names[1]], second.counts, ks)
    _, users = np.unique(first.users, return_inverse=True)
    found = differences(np.stack(list(one.values()), 1), np.stack(list(two.values()), 1), users, seed=seed)
    return Comparison(*names, len(users), dict(zip(one, found, strict=True)))


def _refuse_others(first: Saved, second: Saved) -> None:
    pairs = [
        set(zip(one.users.tolist(), one.times.tolist(), one.counts.tolist(), strict=True)) for one in (first, second)
    ]
    same = len(first.users) == len(second.users) and (first.users == second.users).all()
    if not same or (first.times != second.times).any() or (first.counts != second.counts).any():
        raise DataError(
            f"the two runs did not ask the same queries: {len(first.users):,} and {len(second.users):,}, of which "
            f"{len(pairs[0] & pairs[1]):,} are the same",
            where="compare",
            remedy="Evaluate both on the same data, split and part, with seen items treated alike.",
        )

    if (SEEN_STAYS in first.protocol) != (SEEN_STAYS in second.protocol):
        raise DataError(
            "one run let items of the history come back, the other did not",
            where="compare",
            remedy="Evaluate both with --seen, or both without.",
        )


def _scorer(saved: Saved, name: str) -> str:
    if not name:
        return next(iter(saved.hits))
    if name not in saved.hits:
        raise DataError(
            f"there is no scorer '{name}'{nearest(name, saved.hits)}",
            where="compare",
            expected=f"one of {', '.join(saved.hits)}",
        )
    return name

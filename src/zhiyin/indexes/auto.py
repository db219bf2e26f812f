"""What an index must reach, instead of which one it is: `zhiyin.indexes.tune` finds it."""

from dataclasses import dataclass, replace
from typing import Self

from zhiyin.errors import SpecError

AUTO = "auto:Auto"
"""The `use` of an index that is still to be found: no `IndexSpec`, since it builds and opens nothing."""

LEAST_SECONDS, TRAINING_SHARE = 120.0, 0.1
"""What tuning may take where nothing is said: so much, or that share of the training's time if it is longer."""


@dataclass(frozen=True, slots=True)
class Auto:
    """The fastest index that finds at least `overlap` of the exact top `k` for held-out users.

    `memory_mb`: the most an index may hold beside the memory-mapped vectors; `build_seconds`: the longest one build may
    take; 0 is no limit of its own. `seconds`: for all of the tuning (of the builds in full, only the first is begun
    when it would not fit into what is left); 0 is two minutes, or a tenth of the time that training took where that
    is longer. `threads`: how many search at once when they are timed. `seed`: of the sample, the split of the queries
    and the k-means.
    """

    overlap: float = 0.95
    k: int = 100
    memory_mb: int = 0
    build_seconds: float = 0.0
    seconds: float = 0.0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.overlap <= 1:
            raise SpecError(f"overlap = {self.overlap}", expected="above 0, at most 1")
        if min(self.k, self.threads) < 1 or not min(self.memory_mb, self.build_seconds, self.seconds) >= 0:
            raise SpecError(
                f"k = {self.k}, threads = {self.threads}, memory_mb = {self.memory_mb}, "
                f"build_seconds = {self.build_seconds}, seconds = {self.seconds}",
                expected="k and threads ≥ 1, limits ≥ 0",
            )

    def after(self, training: float = 0.0) -> Self:
        """The same with its time limit in numbers, where training took so many seconds."""
        return replace(self, seconds=self.seconds or max(LEAST_SECONDS, TRAINING_SHARE * training))


EXAMPLES = (Auto(),)

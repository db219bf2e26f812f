"""An earlier run, whose weights another one starts from: its data may have grown since, by what was appended."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from zhiyin import spec
from zhiyin.data.prepared import Prepared
from zhiyin.errors import TrainingError
from zhiyin.features.schema import Schema
from zhiyin.learning import checkpoint
from zhiyin.models.base import ModelSpec, RetrievalModel
from zhiyin.models.inputs import Embeddings


@dataclass(frozen=True, slots=True)
class Earlier:
    """The best step of the run in `folder`."""

    folder: Path
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Raises `TrainingError` where there is none."""
        return cls(folder, *checkpoint.load(folder / "best.safetensors"))

    @property
    def schema(self) -> Schema:
        """As it was fitted then."""
        return spec.build(Schema, self.facts["schema"], str(self.folder))

    def put_into(self, model: RetrievalModel, kind: ModelSpec, data: Prepared) -> None:
        """Copy the weights. What had a row of a table keeps it; the row for unknown ones stays the last; new rows stay
        as they are. Raises `TrainingError` for another model, for data whose rows are other items', and for less of it.
        """
        self._refuse_other_data(data)
        mine, tables = checkpoint.weights(model), _tables(model)
        then = spec.used_build(self.facts["plan"]["model"], "zhiyin.models", str(self.folder))
        if then != kind or not _fits(mine, self.tensors, tables):
            raise TrainingError(
                "these are weights of another model, or of other features",
                where=str(self.folder),
                expected=f"{kind}, with the recipe's features",
                remedy="Put [model] and [features] back, or start over with --fresh and without --from.",
            )
        with torch.no_grad():
            for name, tensor in mine.items():
                old = self.tensors[name]
                if name in tables:
                    tensor[: len(old) - 1] = old[:-1]
                    tensor[-1] = old[-1]
                else:
                    tensor.copy_(old)

    def _refuse_other_data(self, data: Prepared) -> None:
        then, now = self.facts["counts"][1], len(data.items)
        if self.facts.get("lineage", "") != data.lineage or then > now:
            raise TrainingError(
                f"the {then:,} items it was trained with have other rows among today's {now:,}",
                where=str(self.folder),
                expected="data that new files were appended to",
                remedy="The log was prepared anew since: start over with --fresh and without --from. "
                "`zhiyin prepare RECIPE --append FILES` keeps the rows.",
            )


def _tables(model: RetrievalModel) -> set[str]:
    return {f"model.{name}.table.weight" for name, one in model.named_modules() if isinstance(one, Embeddings)}


def _fits(mine: Mapping[str, Tensor], saved: Mapping[str, Tensor], tables: set[str]) -> bool:
    """Whether every weight is there: a table as wide, and not longer; anything else of the same shape."""
    if mine.keys() != {name for name in saved if name.startswith("model.")}:
        return False
    return all(
        saved[name].shape[1:] == tensor.shape[1:] and len(saved[name]) <= len(tensor)
        if name in tables
        else saved[name].shape == tensor.shape
        for name, tensor in mine.items()
    )

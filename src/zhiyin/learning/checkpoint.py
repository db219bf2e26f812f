"""Weights on disk: one safetensors file that says by itself what it holds. Written whole or not at all; no pickle."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from zhiyin.errors import TrainingError

FORMAT = 1


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `path` with these tensors and JSON facts; a reader sees the old file or the new one."""
    hidden = path.with_name(f".{path.name}.part")
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(contiguous, hidden, metadata={"zhiyin": json.dumps({"format": FORMAT, **facts})})
    with hidden.open("rb+") as file:
        os.fsync(file.fileno())
    hidden.replace(path)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save` wrote. Raises `TrainingError` for a file that is missing, damaged or of a newer format."""
    with _opened(path) as (file, facts):
        return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118 – not a dict


def facts(path: Path) -> dict[str, Any]:
    """The facts that `save` wrote, without the tensors. Raises as `load` does."""
    with _opened(path) as (_, told):
        return told


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads(file.metadata()["zhiyin"])
            if told["format"] > FORMAT:
                raise TrainingError(
                    f"checkpoint format {told['format']}",
                    where=str(path),
                    expected=f"format {FORMAT} or older",
                    remedy="Upgrade zhiyin.",
                )
            yield file, told
    except FileNotFoundError:
        raise TrainingError(
            "no trained model here", where=str(path), remedy="Run `zhiyin fit recipe.toml` first."
        ) from None
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise TrainingError(
            f"not a checkpoint, or a damaged one ({error})", where=str(path), remedy="Remove it and fit again."
        ) from None


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A model's parameters and buffers by name; a table that two towers share is there once."""
    return {f"model.{name}": tensor for name, tensor in (*model.named_parameters(), *model.named_buffers())}


def restore(model: nn.Module, tensors: Mapping[str, Tensor], where: Path) -> None:
    """Put saved weights back. Raises `TrainingError` when the model has other parameters, or other shapes."""
    mine = weights(model)
    theirs = {name: tensor.shape for name, tensor in tensors.items() if name.startswith("model.")}
    if theirs != {name: tensor.shape for name, tensor in mine.items()}:
        raise TrainingError(
            "the checkpoint belongs to another model, schema or catalogue",
            where=str(where),
            remedy="Fit again with --fresh, or restore the recipe and the data it was trained with.",
        )
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(tensors[name])

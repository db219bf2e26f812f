"""Each sequence model against its paper's equations, in plain numpy and loops."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from zhiyin.features.schema import Schema
from zhiyin.models.base import ModelSpec, Runs
from zhiyin.models.esasrec import ESASRec
from zhiyin.models.gru4rec import GRU4Rec
from zhiyin.models.hstu import HSTU
from zhiyin.models.narm import NARM
from zhiyin.models.sasrec import SASRec
from zhiyin.models.stamp import STAMP

Array = NDArray[np.float64]


class Weights:
    """A model's parameters by the end of their names."""

    def __init__(self, named: dict[str, Array], prefix: str) -> None:
        self.named, self.prefix = named, prefix

    def __getitem__(self, name: str) -> Array:
        return self.named[f"{self.prefix}{name}"]

    def below(self, name: str) -> "Weights":
        return Weights(self.named, f"{self.prefix}{name}.")

    def linear(self, name: str, values: Array) -> Array:
        bias = self.named.get(f"{self.prefix}{name}.bias", np.zeros(1))
        return np.asarray(values @ self[f"{name}.weight"].T + bias)

    def norm(self, name: str, values: Array) -> Array:
        centred = values - values.mean(-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
        return np.asarray(unit * self[f"{name}.weight"] + self[f"{name}.bias"])


def sigmoid(values: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-values)))


def silu(values: Array) -> Array:
    return np.asarray(values * sigmoid(values))


def softmax(values: Array) -> Array:
    return np.asarray(np.exp(values) / np.exp(values).sum())


def gru(w: Weights, events: Array) -> Array:
    """[t, units] h₁ … hₜ; the candidate's reset gate stands behind its matrix, as in all fast implementations."""
    h, states = np.zeros(w["weight_hh_l0"].shape[1]), []
    for x in events:
        from_x = np.split(w["weight_ih_l0"] @ x + w["bias_ih_l0"], 3)
        from_h = np.split(w["weight_hh_l0"] @ h + w["bias_hh_l0"], 3)
        reset, update = sigmoid(from_x[0] + from_h[0]), sigmoid(from_x[1] + from_h[1])
        h = (1 - update) * np.tanh(from_x[2] + reset * from_h[2]) + update * h
        states.append(h)
    return np.array(states)


def gru4rec(w: Weights, x: Array) -> Array:
    for layer in ("layers.0", "layers.1"):
        x = gru(w.below(layer), x)
    return w.linear("out", x[-1])


def narm(w: Weights, x: Array) -> Array:
    h = gru(w.below("gru"), x)
    local = np.zeros_like(h[-1])
    for each in h:
        local += w["v"] @ sigmoid(w["of_last.weight"] @ h[-1] + w["of_each.weight"] @ each) * each
    return w.linear("bilinear", np.concatenate([h[-1], local]))


def stamp(w: Weights, x: Array) -> Array:
    mean, attended = x.sum(0) / len(x), np.zeros_like(x[0])
    for each in x:
        hidden = w.linear("of_each", each) + w.linear("of_last", x[-1]) + w.linear("of_mean", mean)
        attended += w["w"] @ sigmoid(hidden) * each
    return np.asarray(np.tanh(w.linear("general", attended)) * np.tanh(w.linear("current", x[-1])))


def attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    """Softmax attention of each place over itself and those before, head by head."""
    out, width = np.zeros_like(v), v.shape[1] // heads
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(len(q)):
            shares = softmax(q[t, part] @ k[: t + 1, part].T / np.sqrt(width))
            out[t, part] = shares @ v[: t + 1, part]
    return out


def sasrec(w: Weights, x: Array) -> Array:
    for block in (w.below("blocks.0"), w.below("blocks.1")):
        q, k, v = np.split(block.linear("qkv", block.norm("before_attention", x)), 3, axis=1)
        x = x + attention(q, k, v, heads=2)
        inner = np.maximum(block.linear("inner", block.norm("before_network", x)), 0)
        x = x + block.linear("outer", inner)
    return np.asarray(w.norm("norm", x)[-1])


def esasrec(w: Weights, x: Array) -> Array:
    for block in (w.below("blocks.0"), w.below("blocks.1")):
        q, k, v = np.split(block.linear("qkv", block.norm("before_attention", x)), 3, axis=1)
        x = x + sigmoid(block.linear("attention_gate", x)) * block.linear("out", attention(q, k, v, heads=2))
        gate, value = np.split(block.linear("into", block.norm("before_network", x)), 2, axis=1)
        x = x + sigmoid(block.linear("network_gate", x)) * block.linear("back", silu(gate) * value)
    return np.asarray(w.norm("norm", x)[-1])


def hstu(w: Weights, x: Array) -> Array:
    heads, longest = 2, LENGTH
    for layer in (w.below("layers.0"), w.below("layers.1")):
        u, v, q, k = np.split(silu(layer.linear("into", layer.norm("before", x))), 4, axis=1)
        found, width = np.zeros_like(x), x.shape[1] // heads
        for head in range(heads):
            part, bias = slice(head * width, (head + 1) * width), layer["bias"][head * longest :]
            for t in range(len(x)):
                for j in range(t + 1):
                    found[t, part] += silu(q[t, part] @ k[j, part] + bias[t - j]) / longest * v[j, part]
        x = x + layer.linear("out", layer.norm("after", found) * u)
    return np.asarray(x[-1])


CATALOGUE, LENGTH, DIM = 12, 5, 8
ORACLES: list[tuple[ModelSpec, Callable[[Weights, Array], Array]]] = [
    (GRU4Rec(dim=DIM, hidden=(6, 10), normalize=False, temperature=1.0), gru4rec),
    (NARM(dim=DIM, units=6, normalize=False, temperature=1.0), narm),
    (STAMP(dim=DIM, normalize=False, temperature=1.0), stamp),
    (SASRec(dim=DIM, heads=2, normalize=False, temperature=1.0), sasrec),
    (ESASRec(dim=DIM, heads=2, expansion=3, normalize=False, temperature=1.0), esasrec),
    (HSTU(dim=DIM, heads=2, normalize=False, temperature=1.0), hstu),
]


@torch.no_grad()
@pytest.mark.parametrize(("example", "oracle"), ORACLES, ids=[type(example).__name__ for example, _ in ORACLES])
def test_a_users_vector_is_what_the_paper_says(example: ModelSpec, oracle: Callable[[Weights, Array], Array]) -> None:
    """After each of five events, with every parameter shaken, so that none is where it leaves no trace."""
    torch.manual_seed(0)
    model = example.build(Schema(history_length=LENGTH), CATALOGUE).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape), alpha=0.3)
    named = {name: value.double().numpy() for name, value in model.state_dict().items()}
    history = torch.tensor([[3, 1, 4, 1, 5]])
    events = named["items.table.weight"][history[0].numpy()] * np.sqrt(DIM)
    if "positions" in named:
        events = events + named["positions"]
    places = torch.arange(LENGTH + 1)
    found = model.run_vectors(Runs(history, places[None], places, {}, {}, LENGTH))[:, 0]
    np.testing.assert_allclose(found[0], named["start"], rtol=1e-6)
    for count in range(1, LENGTH + 1):
        expected = oracle(Weights(named, "encoder."), events[:count])
        np.testing.assert_allclose(found[count], expected, rtol=1e-4, atol=1e-4)

"""Causal attention: the softmax one of transformers, and the additive one of recurrent models."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 1 << 19
"""Numbers of the additive attention's hidden layer that are held at once: what stays in a CPU's cache."""


def split_heads(values: Tensor, heads: int) -> Tensor:
    """[r, heads, P, d/heads] from [r, P, d]."""
    return values.reshape(*values.shape[:2], heads, -1).transpose(1, 2)


def joined_heads(values: Tensor) -> Tensor:
    """[r, P, d] from [r, heads, P, d/heads]."""
    return values.transpose(1, 2).flatten(2)


def attended(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """[r, P, d]: softmax(QKᵀ/√(d/heads)) V (Vaswani et al. 2017, equation 1), each place over itself and those before;
    all [r, P, d]."""
    q, k, v = split_heads(queries, heads), split_heads(keys, heads), split_heads(values, heads)
    return joined_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))


def attended_last(query: Tensor, keys: Tensor, values: Tensor, counts: Tensor, heads: int) -> Tensor:
    """[n, d]: the same for one query [n, d] over the first counts [n] (at least one) of keys and values [n, P, d]."""
    q, k, v = split_heads(query[:, None], heads), split_heads(keys, heads), split_heads(values, heads)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    shares = scores.masked_fill(beyond(counts, keys.shape[1])[:, None, None], -torch.inf).softmax(-1)
    return joined_heads(shares @ v)[:, 0]


def beyond(counts: Tensor, width: int) -> Tensor:
    """bool [n, width]: which places lie after the first counts [n], at least one."""
    return torch.arange(width, device=counts.device) >= counts.clamp(min=1)[:, None]


def additive(queries: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
    """[r, P, P] vᵀσ(q_t + k_j) for j ≤ t, and 0 beyond: queries, keys [r, P, d], vector [d].

    The hidden layer has r·P²·d numbers: it is made a few queries at a time, and again in the backward pass.
    """
    weights: Tensor = _Additive.apply(queries, keys, vector)  # type: ignore[no-untyped-call]
    return weights


def additive_last(query: Tensor, keys: Tensor, vector: Tensor, counts: Tensor) -> Tensor:
    """[n, P] the same for one query [n, d] over the first counts [n] (at least one) of keys [n, P, d]."""
    weights = torch.sigmoid(query[:, None] + keys) @ vector
    return weights.masked_fill(beyond(counts, keys.shape[1]), 0.0)


def _parts(queries: Tensor) -> list[slice]:
    runs, places, width = queries.shape
    size = max(1, CHUNK // (runs * places * width))
    return [slice(start, min(start + size, places)) for start in range(0, places, size)]


def _hidden(queries: Tensor, keys: Tensor, part: slice) -> Tensor:
    """[r, part, part.stop, d] σ(q_t + k_j)."""
    return (queries[:, part, None] + keys[:, None, : part.stop]).sigmoid_()


class _Additive(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, queries: Tensor, keys: Tensor, vector: Tensor) -> Tensor:
        context.save_for_backward(queries, keys, vector)
        places = queries.shape[1]
        weights = queries.new_zeros(len(queries), places, places)
        for part in _parts(queries):
            weights[:, part, : part.stop] = _hidden(queries, keys, part) @ vector
        return weights.tril_()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, vector = context.saved_tensors
        gradient = gradient.tril()
        slopes = torch.zeros_like(queries), torch.zeros_like(keys), torch.zeros_like(vector)
        for part in _parts(queries):
            hidden, above = _hidden(queries, keys, part), gradient[:, part, : part.stop, None]
            slopes[2].add_(hidden.flatten(0, 2).T @ above.flatten())
            inner = hidden.sub_(hidden.square()).mul_(above)
            slopes[0][:, part] = inner.sum(2)
            slopes[1][:, : part.stop] += inner.sum(1)
        return slopes[0] * vector, slopes[1] * vector, slopes[2]

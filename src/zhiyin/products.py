"""Matrix products in float32, by the faster of the two libraries that torch brings for a processor.

torch takes float32 products from MKL, which leaves half of an AMD processor's width unused. oneDNN uses all of it, and
is taken where products may be in bfloat16; a processor that has no fast bfloat16 (no AMX) then gets float32 all the
same, which is tried before it is believed. oneDNN makes a kernel for each shape it has not seen, which costs more than
the kernel gains, so the long side is cut into powers of two: few shapes, each used often.
"""

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST, MOST = 256, 4096
"""Rows in the smallest and in the largest piece; what is left below the smallest is torch's own product."""

_BACKENDS: Any = torch.backends

EXACT = 1e-6
"""The largest error, as a part of the largest number, of a product in float32."""


def product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """[n, m] left [n, k] · right [k, m], float32; no gradient."""
    if not _pays(left):
        return torch.mm(left, right) if out is None else torch.mm(left, right, out=out)
    out = left.new_empty(len(left), right.shape[1]) if out is None else out
    whole = 0
    with _wide():
        for start, stop in _pieces(len(left)):
            torch.mm(left[start:stop], right, out=out[start:stop])
            whole = stop
    if whole < len(left):
        torch.mm(left[whole:], right, out=out[whole:])
    return out


def summed(left: Tensor, right: Tensor) -> Tensor:
    """[a, b] leftᵀ · right of left [n, a] and right [n, b], float32; no gradient."""
    if not _pays(left):
        return left.T @ right
    out = left.new_zeros(left.shape[1], right.shape[1])
    whole = 0
    with _wide():
        for start, stop in _pieces(len(left)):
            out.addmm_(left[start:stop].T, right[start:stop])
            whole = stop
    if whole < len(left):
        out.addmm_(left[whole:].T, right[whole:])
    return out


class Linear(nn.Linear):
    """`nn.Linear`, by these products."""

    def forward(self, input: Tensor) -> Tensor:
        """[…, out] from [..., in]."""
        if torch.compiler.is_exporting() or input.numel() < LEAST * input.shape[-1] or not _pays(input):
            return F.linear(input, self.weight, self.bias)
        flat = input.reshape(-1, input.shape[-1])
        found: Tensor = _Linear.apply(flat, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return found if input.dim() == 2 else found.view(*input.shape[:-1], -1)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        context.save_for_backward(inputs, weight)
        outputs = product(inputs, weight.T)
        return outputs if bias is None else outputs.add_(bias)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        inputs, weight = context.saved_tensors
        gradient = gradient.contiguous()
        below, own, bias = context.needs_input_grad
        return (
            product(gradient, weight) if below else None,
            summed(gradient, inputs) if own else None,
            gradient.sum(0) if bias else None,
        )


def _pays(left: Tensor) -> bool:
    if left.device.type != "cpu" or left.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return False
    return _wider()


def _pieces(length: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of pieces of `MOST` rows and then of falling powers of two, down to `LEAST`."""
    start = 0
    while length - start >= LEAST:
        size = min(MOST, 1 << (length - start).bit_length() - 1)
        yield start, start + size
        start += size


@contextmanager
def _wide() -> Iterator[None]:
    setting = _BACKENDS.mkldnn.matmul
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        yield
    finally:
        setting.fp32_precision = before


@cache
def _wider() -> bool:
    """Whether oneDNN's kernels are wider than MKL's here, and as exact."""
    if not (_is_amd() and _BACKENDS.mkl.is_available() and _BACKENDS.mkldnn.is_available()):
        return False
    if _BACKENDS.cpu.get_cpu_capability() != "AVX512" or not hasattr(_BACKENDS.mkldnn, "matmul"):
        return False
    made = torch.Generator().manual_seed(0)
    left, right = torch.randn(LEAST, 64, generator=made), torch.randn(64, 64, generator=made)
    with _wide():
        found = left @ right
    exact = left.double() @ right.double()
    return bool((found - exact).abs().max() <= EXACT * exact.abs().max())


def _is_amd() -> bool:
    facts = Path("/proc/cpuinfo")
    return "AuthenticAMD" in (facts.read_text() if facts.exists() else platform.processor())

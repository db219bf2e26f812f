"""Products in pieces are the products, to the last bits of float32, and so are their gradients."""

from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from zhiyin import products
from zhiyin.products import LEAST, MOST, Linear, product, summed

LENGTHS = st.sampled_from([0, 1, LEAST - 1, LEAST, LEAST + 1, 3 * LEAST - 1, MOST, MOST + 2 * LEAST + 7])


@pytest.fixture(params=["as this processor has it", "in pieces"], autouse=True)
def way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Pieces are taken on every processor, in whatever kernels it has."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in pieces":
            patch.setattr(products, "_wider", lambda: True)
            patch.setattr(products, "_wide", nullcontext)
        yield


def numbers(rows: int, columns: int, seed: int) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, exact: Tensor, tolerance: float = 2e-6) -> None:
    assert found.dtype == torch.float32
    assert found.shape == exact.shape
    if exact.numel():
        assert float((found.double() - exact).abs().max()) <= tolerance * max(1.0, float(exact.abs().max()))


@settings(max_examples=30, deadline=None)
@given(rows=LENGTHS, inner=st.integers(1, 70), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_product_is_the_product(rows: int, inner: int, columns: int, seed: int) -> None:
    left, right = numbers(rows, inner, seed), numbers(columns, inner, seed + 1).T
    exact = left.double() @ right.double()
    close(product(left, right), exact)
    place = torch.full((rows, columns), torch.nan)
    assert product(left, right, out=place) is place
    close(place, exact)


@settings(max_examples=30, deadline=None)
@given(rows=LENGTHS, inner=st.integers(1, 70), columns=st.integers(1, 40), seed=st.integers(0, 99))
def test_a_sum_over_rows_is_the_sum(rows: int, inner: int, columns: int, seed: int) -> None:
    """To a rounding of what is added up, which may be far more than what is left of it."""
    left, right = numbers(rows, inner, seed), numbers(rows, columns, seed + 1)
    found, added_up = summed(left, right), left.double().norm(dim=0)[:, None] * right.double().norm(dim=0)
    assert found.shape == (inner, columns)
    assert ((found.double() - left.double().T @ right.double()).abs() <= 2e-7 * added_up).all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(5, 8), (700, 8), (3, 300, 8)])
def test_a_linear_layer_is_torchs_own(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = Linear(8, 6, bias=bias), nn.Linear(8, 6, bias=bias)
    theirs.load_state_dict(ours.state_dict())
    inputs = torch.randn(shape)
    directions = torch.randn(*shape[:-1], 6)
    slopes = []
    for layer in (ours, theirs):
        asked = inputs.clone().requires_grad_()
        (layer(asked) * directions).sum().backward()
        slopes.append([asked.grad, *(parameter.grad for parameter in layer.parameters())])
    torch.testing.assert_close(ours(inputs), theirs(inputs), atol=1e-5, rtol=1e-5)
    for mine, their in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, their, atol=1e-4, rtol=1e-4)


def test_what_a_program_says_of_precision_stays_said() -> None:
    setting = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = setting.fp32_precision
    product(numbers(1000, 64, 0), numbers(64, 64, 1))
    assert setting.fp32_precision == before
    assert torch.get_float32_matmul_precision() == "highest"

"""What the tests of all ops measure against: float64 on the same rounded inputs, and the bounds of the specification."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detkd.ops import load_error

BACKENDS = ["reference"] if load_error() else ["reference", "fused"]
NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
DEVICES = ["cpu", pytest.param("cuda", marks=[pytest.mark.cuda, NO_GPU])]
# Of the gradient in norm, and of the loss relative to the sum of its absolute terms.
BOUNDS = {torch.float32: 5e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}

REFERENCE_ERROR = 1e-12


def assert_close(name: str, got: Tensor, expected: Tensor, scale: Tensor, bound: float, steps: float = 1.0) -> None:
    """Check ``‖got − expected‖ ≤ bound · ‖scale‖``; infinite entries must be the same.

    `steps` smallest subnormals are allowed on each value: more than one where it was multiplied after it was stored.
    """
    finite = expected.isfinite()
    assert torch.equal(got.double()[~finite], expected[~finite]), name
    error = (got.double() - expected)[finite].norm()
    # A value below the smallest subnormal of its type is rounded to it or to 0, however accurate it is.
    step = max(steps, 1.0) * torch.finfo(got.dtype).smallest_normal * torch.finfo(got.dtype).eps
    # And float64 takes differences of numbers near 1 too.
    step = max(step, REFERENCE_ERROR)
    limit = bound * scale[finite].norm() + step * max(expected.numel(), 1) ** 0.5
    assert error <= limit, f"{name}: error {error:.3e}, allowed {limit:.3e}"


def dense_like(x: Tensor, order: list[int]) -> Tensor:
    """Return the values of `x` in memory of another order of dimensions."""
    inverse = [order.index(d) for d in range(len(order))]
    return x.permute(order).contiguous().permute(inverse)

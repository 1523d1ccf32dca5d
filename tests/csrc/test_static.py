"""What nvcc makes of the CUDA kernels: no spills, no local memory, 128-bit accesses where memory is aligned."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from cuda_static import ARCHITECTURES, analyse, emulate, find_tool, predict

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from cuda_emulation import Emulation

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="no CUDA toolkit")

IN_EVERY_RUN = ("sm_90",)

PLANTED = """
#include <cuda_runtime_api.h>

// Named like one for aligned memory.
template <typename scalar_t, int kWidth>
__global__ void narrow_kernel(scalar_t* x) {
  x[threadIdx.x] += 1;
}
template __global__ void narrow_kernel<float, 4>(float*);

// Which element of the array is written is known too late for registers.
__global__ void local_kernel(float* x, const int* places) {
  float held[64];
  for (int i = 0; i < 64; ++i) held[i] = x[i];
  for (int i = 0; i < 64; ++i) held[places[i]] += held[i];
  for (int i = 0; i < 64; ++i) x[i] = held[i];
}

// Thirty-two registers a thread hold less than this.
__global__ void __launch_bounds__(1024, 2) spilling_kernel(float* x) {
  float held[64];
  for (int i = 0; i < 64; ++i) held[i] = x[i * 1024 + threadIdx.x];
  __syncthreads();
  for (int i = 0; i < 64; ++i) x[i * 1024 + threadIdx.x] = held[63 - i] * held[i];
}
"""


@pytest.mark.parametrize(
    "architecture", [a if a in IN_EVERY_RUN else pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES]
)
def test_no_kernel_has_faults(architecture: str) -> None:
    kernels = analyse([architecture])
    assert len([kernel for kernel in kernels if kernel.vectors]) > 30
    assert not [fault for kernel in kernels for fault in kernel.faults()]


def test_faults_are_found(tmp_path: Path) -> None:
    """The check itself."""
    source = tmp_path / "planted.cu"
    source.write_text(PLANTED)
    faults = {kernel.name: " ".join(kernel.faults()) for kernel in analyse(["sm_90"], [source])}
    assert "no 128-bit loads" in faults["narrow_kernel<float, 4>"]
    assert "no 128-bit stores" in faults["narrow_kernel<float, 4>"]
    assert "local memory" in faults["local_kernel"]
    assert "spills" in faults["spilling_kernel"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("op", "shape", "times"),
    [
        ("kl_div", (67200, 80), 1),
        ("kl_div", (1024, 1600), 1),
        ("kl_div", (16, 80, 8400), 1),
        ("kl_div", (2, 150, 128, 128), 1),
        ("kl_div", (1024, 32000), 5 / 3),  # student and teacher are read twice
        ("binary_kl", (16, 80, 8400), 1),
        ("attention_transfer", (8, 256, 40, 40), 1),
        ("attention_mse", (8, 256, 40, 40), 1),
        ("standardized_mse", (8, 256, 40, 40), 5 / 3),
    ],
)
def test_bytes_that_are_moved(
    emulation: Emulation, op: str, shape: tuple[int, ...], times: float, dtype: torch.dtype
) -> None:
    emulation.launches()
    case = (op, "", shape)
    prediction = predict(case, dtype, *emulate(emulation, case, dtype))
    assert prediction.bytes == pytest.approx(times * prediction.floor_bytes, rel=1e-3)


def test_a_missing_tool_is_named() -> None:
    with pytest.raises(ArgumentError, match="pip install nvidia-cuda-nothing"):
        find_tool("nothing")

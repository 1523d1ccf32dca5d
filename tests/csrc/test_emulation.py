"""The very sources of the CUDA kernels, run on the host: results, races, and that no line of them goes without a run."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.csrc.conftest import ROOT, compile_emulation
from tests.ops.reference import BOUNDS, assert_close
from tests.ops.test_binary_kl import reference as binary_reference
from tests.ops.test_feature_maps import focal, pearson, transfer
from tests.ops.test_kl_div import reference

INF = float("inf")
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}


def kl_div(
    library: ctypes.CDLL, student: Tensor, teacher: Tensor, temperature: float, weight: Tensor | None, reduced: bool
) -> tuple[Tensor, Tensor]:
    """Loss and gradient of [outer, classes, inner] logits from the emulated launcher."""
    outer, classes, inner = student.shape
    gradient = torch.full_like(student, 7.0)
    loss = torch.full((() if reduced else (outer, inner)), 7.0)
    error = library.emulate_kl_div(
        TYPES[student.dtype], student.data_ptr(), teacher.data_ptr(), gradient.data_ptr(),
        None if weight is None else weight.data_ptr(), loss.data_ptr(), outer, classes, inner, temperature, 1.0, reduced,
    )  # fmt: skip
    assert error == 0
    return loss, gradient


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("near", [False, True])
@pytest.mark.parametrize("shape", [(37, 5, 1), (3, 80, 1), (2, 1000, 1), (3, 21, 19), (2, 80, 33), (300, 2, 1)])
def test_kl_div_against_float64(
    emulation: ctypes.CDLL, shape: tuple[int, int, int], near: bool, dtype: torch.dtype
) -> None:
    student, noise = 3 * torch.randn(shape), torch.randn(shape)
    teacher = (student + 1e-2 * noise if near else 3 * noise).masked_fill(torch.rand(shape) < 0.1, -INF).to(dtype)
    teacher[:, 0] = 0.0
    student = student.to(dtype)
    weight = torch.rand(shape[0], shape[2]) * (torch.rand(shape[0], shape[2]) < 0.8)
    rows, scale, gradient = reference(student, teacher, 1, 2.0)
    for reduced in (False, True):
        for by in (None, weight):
            factor = torch.ones_like(weight) if by is None else by
            loss, got = kl_div(emulation, student, teacher, 2.0, by, reduced)
            expected, size = rows * factor, scale * factor
            if reduced:
                expected, size = expected.sum(), size.sum()
            assert_close("loss", loss, expected, size, BOUNDS[torch.float32])
            slope = gradient * factor.unsqueeze(1)
            assert_close("gradient", got, slope, slope, BOUNDS[dtype])


@pytest.mark.parametrize("strided", [False, True])
def test_kl_div_of_voids_masks_and_nan(emulation: ctypes.CDLL, strided: bool) -> None:
    nan = float("nan")
    student = torch.tensor([[0.0, 1.0], [-INF, -INF], [0.0, nan], [nan, nan], [0.0, -INF], [nan, 0.0]])
    teacher = torch.tensor([[-INF, -INF], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    weight = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0])
    if strided:
        student, teacher, weight = student.T.contiguous()[None], teacher.T.contiguous()[None], weight[None]
    else:
        student, teacher, weight = student[..., None], teacher[..., None], weight[..., None]
    loss, gradient = kl_div(emulation, student, teacher, 1.0, weight, False)
    loss, gradient = loss.flatten(), gradient[0].T if strided else gradient[..., 0]
    assert loss[[0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    assert loss[[2, 3]].isnan().all()
    assert loss[4] == INF
    assert not gradient[[0, 1, 5]].any()
    assert gradient[[2, 3]].isnan().all()
    torch.testing.assert_close(gradient[4], torch.tensor([0.5, -0.5]))


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("kind", ["kl", "bce"])
@pytest.mark.parametrize("beta", [0.0, 1.0, 1.5])
def test_binary_kl_against_float64(emulation: ctypes.CDLL, beta: float, kind: str, dtype: torch.dtype) -> None:
    student = (5 * torch.randn(7, 301)).to(dtype)
    teacher = (5 * torch.randn(7, 301)).to(dtype)
    teacher[:3] = (student[:3].float() * 1.01).to(dtype)
    weight = torch.rand(7, 301) * (torch.rand(7, 301) < 0.8)
    values, scale, slope, size = binary_reference(student, teacher, 2.0, beta, kind)
    for reduced in (False, True):
        for by in (None, weight):
            factor = torch.ones_like(weight) if by is None else by
            gradient, loss = torch.full_like(student, 7.0), torch.full((() if reduced else (7, 301)), 7.0)
            error = emulation.emulate_binary_kl(
                TYPES[dtype], student.data_ptr(), teacher.data_ptr(), gradient.data_ptr(),
                None if by is None else by.data_ptr(), loss.data_ptr(), 7, 301, 2.0, beta, kind == "bce", 1.0, reduced,
            )  # fmt: skip
            assert error == 0
            expected, terms = values * factor, scale * factor
            if reduced:
                expected, terms = expected.sum(), terms.sum()
            assert_close("loss", loss, expected, terms, BOUNDS[torch.float32])
            assert_close("gradient", gradient, slope * factor, size * factor, BOUNDS[dtype])


def test_binary_kl_of_infinite_and_masked_logits(emulation: ctypes.CDLL) -> None:
    nan = float("nan")
    student = torch.tensor([[INF, -INF, INF, 0.0, nan, nan]])
    teacher = torch.tensor([[INF, -INF, -INF, INF, 0.0, 0.0]])
    weight = torch.tensor([[1.0, 1.0, 1.0, 1.0, 1.0, 0.0]])
    gradient, loss = torch.zeros(1, 6), torch.zeros(1, 6)
    pointers = [x.data_ptr() for x in (student, teacher, gradient, weight, loss)]
    assert emulation.emulate_binary_kl(0, *pointers, 1, 6, 1.0, 0.0, False, 1.0, False) == 0
    assert loss[0, [0, 1, 5]].tolist() == [0.0, 0.0, 0.0]
    assert loss[0, 2] == INF
    assert loss[0, 3].item() == pytest.approx(0.6931472)
    assert loss[0, 4].isnan()
    assert gradient[0, 4].isnan()
    assert gradient[0, [0, 1, 5]].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("dtype", list(TYPES))
@pytest.mark.parametrize("op", ["transfer p=2", "transfer p=1", "transfer p=3", "focal", "pearson"])
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (1, 3, 20, 31)])
def test_feature_maps_against_float64(emulation: ctypes.CDLL, shape: tuple[int, ...], op: str, dtype: torch.dtype) -> None:
    student, teacher = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
    weight = torch.rand(shape[0], *shape[2:]) * (torch.rand(shape[0], *shape[2:]) < 0.8)
    elements = shape[0] * shape[2] * shape[3]
    number, first, second, divisor, formula = {
        "transfer": (0, float(op[-1]) if "=" in op else 0, 0.0, elements, lambda s, t: transfer(s, t, float(op[-1]))),
        "focal": (1, 0.5, 0.3, shape[0], lambda s, t: focal(s, t, weight)),
        "pearson": (2, 1e-6, 0.0, elements * shape[1], pearson),
    }[op.split(maxsplit=1)[0]]
    exact = student.double().requires_grad_()
    expected = formula(exact, teacher.double())
    (slope,) = torch.autograd.grad(expected, exact)
    # Undivided, as a float16 gradient comes: above the type's floor.
    slope = slope * divisor
    gradient, loss = torch.full_like(student, 7.0), torch.full((), 7.0)
    pointers = [x.data_ptr() for x in (student, teacher, gradient, weight, loss)]
    sizes = (shape[0], shape[1], shape[1], shape[2] * shape[3])
    assert emulation.emulate_maps(number, TYPES[dtype], *pointers, *sizes, first, second, 1.0) == 0
    assert_close("loss", loss, expected.detach(), expected.detach(), BOUNDS[torch.float32])
    assert_close("gradient", gradient, slope, slope, BOUNDS[dtype])


@pytest.mark.parametrize("dtype", list(TYPES))
def test_scale(emulation: ctypes.CDLL, dtype: torch.dtype) -> None:
    gradient = torch.randn(1000).to(dtype)
    for factor in (1.0, 4.0, 65536.0 / 3):
        got, by = gradient.clone() / 1024, torch.tensor(factor)
        expected = (got.float() * by).to(dtype)
        assert emulation.emulate_scale(TYPES[dtype], got.data_ptr(), got.numel(), by.data_ptr()) == 0
        assert torch.equal(got, expected)


def sanitize(csrc: Path, program: Path, sanitizer: str) -> subprocess.CompletedProcess[str]:
    compile_emulation(csrc, program, "-O1", "-g", f"-fsanitize={sanitizer}", "-DDETKD_REAL_THREADS", main=True)
    # Without randomised addresses: older sanitizers refuse the layouts of newer kernels.
    options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    command = ["setarch", "-R", str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=options)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_sanitizers_find_nothing(tmp_path: Path, sanitizer: str) -> None:
    result = sanitize(ROOT / "csrc", tmp_path / "program", sanitizer)
    assert result.returncode == 0, result.stderr[-3000:]


def test_a_missing_barrier_is_found(tmp_path: Path) -> None:
    """The check itself: without one barrier ThreadSanitizer must report a race."""
    broken = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", broken)
    source = broken / "kernels/device.cuh"
    text = source.read_text()
    assert "    __syncthreads();\n" in text
    source.write_text(text.replace("    __syncthreads();\n", "", 1))
    result = sanitize(broken, tmp_path / "program", "thread")
    assert result.returncode != 0
    assert "data race" in result.stderr


def test_every_line_of_the_kernels_runs(tmp_path: Path) -> None:
    program = tmp_path / "program"
    compile_emulation(ROOT / "csrc", program, "-O0", "--coverage", main=True)
    subprocess.run([str(program)], check=True, capture_output=True, timeout=120)
    notes = [str(path) for path in tmp_path.glob("*.gcda")]
    report = subprocess.run(
        ["gcov", "--json-format", "--stdout", *notes], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    missed: dict[str, set[int]] = {}
    run: dict[str, set[int]] = {}
    for document in report.stdout.splitlines():
        for file in json.loads(document)["files"]:
            name = Path(file["file"]).name
            for line in file["lines"]:
                (run if line["count"] else missed).setdefault(name, set()).add(line["line_number"])
    for name in [path.name for path in (ROOT / "csrc/kernels").glob("*.cuh")]:
        assert run.get(name), f"{name} is not in the coverage report"
        assert not missed.get(name, set()) - run[name], f"{name}: lines {sorted(missed[name] - run[name])} never ran"

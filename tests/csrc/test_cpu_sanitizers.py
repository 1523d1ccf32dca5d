"""The compiled ops under AddressSanitizer and UBSan, and that these find what is planted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import sanitize

SUBSET = "test_it_is_an_ordinary_tensor or test_strided or test_zero or test_several_threads or test_backends"
# An op, and the one that multiplies its gradient, which a library given may bring anew.
PROGRAM = """
import sys, torch
from detkd import ops
if len(sys.argv) > 1:
    torch.ops.load_library(sys.argv[1])
student = torch.randn(2, 3, requires_grad=True)
(2 * ops.kl_div(student, torch.randn(2, 3), 1, backend="fused")).backward()
print("went on")
"""
SOURCE, READ = "csrc/cpu/scale.cpp", "factor.const_data_ptr<float>()[0]"
PLANTED = {
    "address": ("factor.const_data_ptr<float>()[factor.numel()]", "AddressSanitizer: heap-buffer-overflow"),
    "undefined": ("(2147483647 + static_cast<int>(factor.numel()))", "runtime error: signed integer overflow"),
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def built() -> Path:
    return sanitize.build(sanitize.ROOT, sanitize.BUILT)


@pytest.mark.parametrize("cpu", ["avx512", "avx2", "portable"])
def test_sanitizers_find_nothing_in_the_ops(built: Path, cpu: str) -> None:
    if cpu not in sanitize.instruction_sets(built):
        assert sanitize.run(built, "-c", PROGRAM, cpu=cpu, capture=True).returncode != 0
        return
    done = sanitize.run(built, *sanitize.PYTEST, *sanitize.TESTS[:-1], SUBSET, cpu=cpu, capture=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("sanitizer", PLANTED)
def test_what_is_planted_is_found(built: Path, tmp_path: Path, sanitizer: str) -> None:
    """The check itself: the same build with one fault in one source."""
    fault, report = PLANTED[sanitizer]
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE", "detkd/__init__.py", SOURCE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sanitize.ROOT / name, tmp_path / name)
    text = (tmp_path / SOURCE).read_text()
    assert READ in text
    (tmp_path / SOURCE).write_text(text.replace(READ, fault))
    (planted,) = sanitize.build(tmp_path, tmp_path / "build").rglob("_C*.so")
    done = sanitize.run(built, "-c", PROGRAM, str(planted), capture=True)
    assert done.returncode != 0
    assert report in done.stderr
    assert "scale.cpp" in done.stderr
    assert "went on" not in done.stdout
    assert "went on" in sanitize.run(built, "-c", PROGRAM, capture=True).stdout

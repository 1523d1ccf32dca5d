"""The CUDA kernels on real threads under sanitizers, and that no line or branch of them goes without a run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from cuda_emulation import ROOT, compile_emulation


def sanitize(csrc: Path, program: Path, sanitizer: str) -> subprocess.CompletedProcess[str]:
    compile_emulation(csrc, program, "-O1", "-g", f"-fsanitize={sanitizer}", "-DDETKD_REAL_THREADS", main=True)
    # Without randomised addresses: older sanitizers refuse the layouts of newer kernels.
    options = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    command = ["setarch", "-R", str(program)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=options)


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_sanitizers_find_nothing(tmp_path: Path, sanitizer: str) -> None:
    result = sanitize(ROOT / "csrc", tmp_path / "program", sanitizer)
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["reduce.cuh", "tile.cuh"])
def test_a_missing_barrier_is_found(tmp_path: Path, source: str) -> None:
    """The check itself: without one barrier ThreadSanitizer must report a race."""
    broken = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", broken)
    text = (broken / "kernels" / source).read_text()
    assert "__syncthreads();" in text
    (broken / "kernels" / source).write_text(text.replace("__syncthreads();", "", 1))
    result = sanitize(broken, tmp_path / "program", "thread")
    assert result.returncode != 0
    assert "data race" in result.stderr


def kernel_coverage(folder: Path, csrc: Path) -> Counter[str]:
    """Return how often each line and each branch below csrc/kernels ran in any instantiation of its template."""
    program = folder / "program"
    compile_emulation(csrc, program, "-O0", "--coverage", main=True)
    subprocess.run([str(program)], check=True, capture_output=True, timeout=200)
    command = ["gcov", "--json-format", "--branch-probabilities", "--stdout", *map(str, folder.glob("*.gcda"))]
    report = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    runs: Counter[str] = Counter()
    for file in (file for document in report.splitlines() for file in json.loads(document)["files"]):
        path = Path(file["file"])
        if path.suffix == ".cuh":
            for line in file["lines"]:
                count_line(runs, path.name, line, file["functions"])
    return runs


def count_line(runs: Counter[str], name: str, line: dict[str, Any], functions: list[dict[str, Any]]) -> None:
    """Add a line's runs: gcov lists the branches of all instantiations one after the other."""
    number = line["line_number"]
    runs[f"{name}:{number}"] += line["count"]
    branches = [branch for branch in line["branches"] if not branch["throw"]]  # those are the compiler's
    starts = [f["start_line"] for f in functions if f["start_line"] <= number <= f["end_line"]]
    instantiations = starts.count(max(starts, default=0)) or 1
    each = len(branches) // instantiations if len(branches) % instantiations == 0 else len(branches)
    for i, branch in enumerate(branches):
        runs[f"{name}:{number}, branch {i % each + 1} of {each}"] += branch["count"]


def test_every_line_and_branch_of_the_kernels_runs(tmp_path: Path) -> None:
    runs = kernel_coverage(tmp_path, ROOT / "csrc")
    for path in (ROOT / "csrc/kernels").glob("*.cuh"):
        assert any(place.startswith(path.name) for place in runs), f"{path.name} is not in the coverage report"
    assert not [place for place, count in runs.items() if not count]


@pytest.mark.slow
def test_a_branch_without_a_run_is_found(tmp_path: Path) -> None:
    """The check itself: a branch that the runs do not take must be reported."""
    copy = tmp_path / "csrc"
    shutil.copytree(ROOT / "csrc", copy)
    source = copy / "kernels/scale.cuh"
    text = source.read_text()
    source.write_text(text.replace("if (by == 1.0f) return;", "if (by == 1.0f || by == 77.0f) return;"))
    runs = kernel_coverage(tmp_path, copy)
    assert any(place.startswith("scale.cuh") and not count for place, count in runs.items())

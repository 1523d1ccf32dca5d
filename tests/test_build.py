"""How the extension is built: what setup.py decides, and that nvcc's kernels are in it where nvcc is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detkd.ops import build_info


def setup_py(
    repository: Path, mode: str, path: str | None = None, command: tuple[str, ...] = ("--version",)
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "CUDA_HOME"} | {"DETKD_BUILD": mode}
    if path is not None:
        environment["PATH"] = path
    line = [sys.executable, "setup.py", *command]
    return subprocess.run(line, cwd=repository, env=environment, capture_output=True, text=True, check=False)


def test_what_is_installed_has_the_configurations(repository: Path, tmp_path: Path) -> None:
    done = setup_py(repository, "none", command=("-q", "build_py", "--build-lib", str(tmp_path)))
    assert done.returncode == 0, done.stderr
    shipped = tmp_path / "detkd" / "configs"
    assert (shipped / "yolo" / "yolov5n.yaml").read_bytes() == (repository / "configs/yolo/yolov5n.yaml").read_bytes()
    elsewhere = [sys.executable, "-c", "from detkd.shipped import *; print(shipped_configurations(), end='')"]
    found = subprocess.run(elsewhere, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert found.stdout == str(shipped)


def test_an_unknown_mode_is_one_clear_line(repository: Path) -> None:
    done = setup_py(repository, "gpu")
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("error: expected DETKD_BUILD to be one of")


@pytest.mark.parametrize("asked", ["thread", "1"])
def test_other_sanitizers_are_one_clear_line(repository: Path, asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETKD_SANITIZE", asked)
    done = setup_py(repository, "auto")
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1] == (
        f"error: expected DETKD_SANITIZE to be 'address,undefined' or not set, but got {asked!r}."
    )


@pytest.mark.parametrize("command", [("build_ext",), ("build_ext", "--inplace")])
def test_a_build_under_sanitizers_never_takes_the_place_of_the_one_in_use(
    repository: Path, command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETKD_SANITIZE", "address,undefined")
    done = setup_py(repository, "auto", command=command)
    assert done.returncode != 0
    assert "for the CPU alone: DETKD_SANITIZE=address,undefined" in done.stdout
    assert "error: expected `setup.py build` with DETKD_SANITIZE" in done.stderr


def test_none_builds_nothing(repository: Path) -> None:
    assert "no extension" in setup_py(repository, "none").stdout


def test_without_nvcc_auto_leaves_cuda_out_and_cuda_insists(repository: Path, tmp_path: Path) -> None:
    assert "for the CPU alone: " in setup_py(repository, "auto", str(tmp_path)).stdout
    refused = setup_py(repository, "cuda", str(tmp_path))
    assert refused.returncode != 0
    assert refused.stderr.strip().splitlines()[-1].startswith("error: DETKD_BUILD=cuda, but ")


@pytest.mark.parametrize(
    ("release", "top", "reason"),
    [("release 12.4", "#$ TOP=/x", "is of CUDA 12"), ("nonsense", "", "does not answer as nvcc does")],
)
def test_an_nvcc_that_does_not_fit_is_named(repository: Path, tmp_path: Path, release: str, top: str, reason: str) -> None:
    if torch.version.cuda is None:
        reason = "torch was built without CUDA"
    nvcc = tmp_path / "nvcc"
    nvcc.write_text(f"#!/bin/sh\necho '{release}'\necho '{top}' >&2\n")
    nvcc.chmod(0o755)
    assert reason in setup_py(repository, "auto", f"{tmp_path}{os.pathsep}/usr/bin:/bin").stdout


def test_the_built_extension_says_what_it_holds() -> None:
    info = build_info()
    assert info["torch"].split("+")[0] == torch.__version__.split("+")[0]
    if torch.version.cuda is not None and shutil.which("nvcc"):
        assert "8.0" in info["cuda"]
    for op in ("kl_div", "binary_kl", "attention_transfer", "attention_mse", "standardized_mse", "scale_"):
        has = torch._C._dispatch_has_kernel_for_dispatch_key
        assert has(f"detkd::{op}", "CPU")
        assert has(f"detkd::{op}", "CUDA") == bool(info["cuda"])

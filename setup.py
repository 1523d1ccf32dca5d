"""Builds detkd._C, the compiled ops; everything else stands in pyproject.toml.

DETKD_BUILD=auto (default) builds for the CPU, and for CUDA too where nvcc of torch's CUDA major is found, with or without
a GPU; it installs without the extension where that fails. cpu leaves CUDA out, cuda insists on it, none builds nothing.
TORCH_CUDA_ARCH_LIST chooses other architectures than all that are current.

DETKD_SANITIZE=address,undefined builds for the CPU, to be run under gcc's sanitizers and never to be installed; see
`make sanitize`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import setup
from setuptools.command.build_py import build_py

MODES = ("auto", "cpu", "cuda", "none")
ARCHITECTURES = "8.0;8.6;8.9;9.0;10.0;12.0+PTX"
ROOT = Path(__file__).resolve().parent
STANDARD = "-std=c++20"
FLAGS = ["-O3", STANDARD]
SANITIZERS = "address,undefined"
# A finding ends the process. vptr would want type information that torch's libraries do not export; Python's own flags
# have -fwrapv, under which no sum overflows.
SANITIZED = [f"-fsanitize={SANITIZERS}", "-fno-sanitize=vptr", "-fno-sanitize-recover=all"]
SANITIZED_FLAGS = ["-O1", "-g1", "-fno-omit-frame-pointer", "-fno-wrapv", STANDARD, *SANITIZED]
# For at::parallel_for. Not passed to the linker: torch brings its own OpenMP library, and a second would have threads of
# its own.
THREADS = ["-fopenmp"] if sys.platform == "linux" else []


class BuildPackage(build_py):
    """Puts the configurations, which lie beside the package in a clone, into the package that is installed."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree(ROOT / "configs", Path(self.build_lib, "detkd", "configs"), dirs_exist_ok=True)


COMMANDS = {"build_py": BuildPackage}


def main() -> None:
    mode = os.environ.get("DETKD_BUILD", "auto")
    if mode not in MODES:
        sys.exit(f"error: expected DETKD_BUILD to be one of {list(MODES)}, but got {mode!r}.")
    sanitizers = os.environ.get("DETKD_SANITIZE", "")
    if sanitizers not in {"", SANITIZERS}:
        sys.exit(f"error: expected DETKD_SANITIZE to be {SANITIZERS!r} or not set, but got {sanitizers!r}.")
    if sanitizers:
        mode = "cpu"
    if mode == "none":
        print("detkd: no extension (DETKD_BUILD=none)")
        setup(cmdclass=COMMANDS)
        return
    try:
        import torch
    except ImportError as error:
        if mode != "auto":
            raise
        print(f"detkd: no extension, torch is missing from the build environment ({error}); use --no-build-isolation")
        setup(cmdclass=COMMANDS)
        return
    asked = f"DETKD_SANITIZE={sanitizers}" if sanitizers else "DETKD_BUILD=cpu"
    toolkit, reason = (None, asked) if mode == "cpu" else find_toolkit(torch.version.cuda)
    if toolkit is None and mode == "cuda":
        sys.exit(f"error: DETKD_BUILD=cuda, but {reason}.")
    print(f"detkd: building detkd._C for the CPU {f'and CUDA, {toolkit}' if toolkit else f'alone: {reason}'}")
    described = extension(toolkit, sanitized=bool(sanitizers))
    setup(ext_modules=[described], cmdclass={**COMMANDS, "build_ext": build_command(mode, sanitized=bool(sanitizers))})


def find_toolkit(wanted: str | None) -> tuple[Path | None, str]:
    """Return the folder of the CUDA toolkit that fits torch, or None and why there is none."""
    if wanted is None:
        return None, "torch was built without CUDA"
    home = os.environ.get("CUDA_HOME")
    nvcc = str(Path(home) / "bin" / "nvcc") if home else shutil.which("nvcc")
    if nvcc is None or not Path(nvcc).exists():
        return None, f"nvcc of CUDA {wanted} was not found on PATH or in CUDA_HOME"
    # The nvcc on PATH may be a link or a script that wraps the real one; only nvcc itself knows where its toolkit is.
    said = subprocess.run([nvcc, "-dryrun", "-x", "cu", os.devnull], capture_output=True, text=True, check=False)
    top = re.search(r"^#\$ TOP=(.+)$", said.stderr, re.MULTILINE)
    release = re.search(
        r"release (\d+)\.", subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    )
    if top is None or release is None:
        return None, f"{nvcc} does not answer as nvcc does"
    if release[1] != wanted.split(".")[0]:
        return None, f"{nvcc} is of CUDA {release[1]} and torch of CUDA {wanted}"
    return Path(top[1].strip()).resolve(), ""


def extension(toolkit: Path | None, *, sanitized: bool) -> Any:
    """Describe detkd._C; with a toolkit, its CUDA kernels too, or under sanitizers."""
    if toolkit is not None:
        # Read by torch when it is imported (CUDA_HOME) and when it builds: without a GPU it can't guess architectures.
        os.environ["CUDA_HOME"] = str(toolkit)
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    folders = ["csrc", "csrc/ops", "csrc/cpu"]
    if toolkit is None:
        flags, links = (SANITIZED_FLAGS, SANITIZED) if sanitized else (FLAGS, [])
        cpu = sources(folders, "*.cpp")
        return CppExtension("detkd._C", cpu, extra_compile_args=flags + THREADS, extra_link_args=links)
    architectures = os.environ["TORCH_CUDA_ARCH_LIST"].replace(" ", ";")
    return CUDAExtension(
        "detkd._C",
        sources([*folders, "csrc/cuda"], "*.cpp") + sources(["csrc/cuda"], "*.cu"),
        define_macros=[("DETKD_CUDA_ARCHITECTURES", f'"{architectures}"')],
        include_dirs=wheel_headers(),
        extra_compile_args={"cxx": FLAGS + THREADS, "nvcc": FLAGS},
    )


def sources(folders: list[str], pattern: str) -> list[str]:
    return [str(path.relative_to(ROOT)) for folder in folders for path in sorted((ROOT / folder).glob(pattern))]


def wheel_headers() -> list[str]:
    """Headers that torch's own wheels brought: its headers include some that a bare nvcc lacks."""
    import torch

    site = Path(torch.__file__).resolve().parent.parent
    return [str(path) for path in sorted(site.glob("nvidia/cu*/include"))]


def build_command(mode: str, *, sanitized: bool) -> Any:
    from torch.utils.cpp_extension import BuildExtension

    class Build(BuildExtension):  # type: ignore[misc]
        """Lets an installation succeed where the compiler fails, unless the extension was asked for."""

        def run(self) -> None:
            if sanitized and "build" not in self.distribution.commands:
                # In place or installed, everybody would load it, and it does not load without the sanitizers' libraries.
                sys.exit("error: expected `setup.py build` with DETKD_SANITIZE, as `make sanitize` calls it.")
            try:
                super().run()
            except Exception as error:
                if mode != "auto":
                    raise
                print(f"detkd: no extension, compilation failed: {error}", file=sys.stderr)
                self.extensions = []

    return Build


main()

"""Builds the CUDA kernels for the host, where csrc/emulation runs them."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def compile_emulation(csrc: Path, output: Path, *flags: str, main: bool = False) -> None:
    """Compile the launchers and kernels below `csrc` as C++; with `main`, into a program."""
    sources = [*sorted((csrc / "cuda").glob("*.cu")), csrc / "emulation/runtime.cpp", csrc / "emulation/bindings.cpp"]
    sources += [csrc / "emulation/sanitized_main.cpp"] if main else []
    command = ["g++", "-std=c++20", "-x", "c++", "-I", str(csrc / "emulation/include"), *flags, *map(str, sources)]
    built = subprocess.run([*command, "-pthread", "-o", str(output)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


@pytest.fixture(scope="session")
def emulation(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The launchers as a library."""
    library = tmp_path_factory.mktemp("emulation") / "emulation.so"
    compile_emulation(ROOT / "csrc", library, "-O2", "-fPIC", "-shared")
    loaded = ctypes.CDLL(str(library))
    pointer, count, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
    loaded.emulate_kl_div.argtypes = [
        ctypes.c_int, *[pointer] * 5, *[count] * 3, real, real, ctypes.c_bool,
    ]  # fmt: skip
    loaded.emulate_binary_kl.argtypes = [
        ctypes.c_int, *[pointer] * 5, *[count] * 2, real, real, ctypes.c_bool, real, ctypes.c_bool,
    ]  # fmt: skip
    loaded.emulate_maps.argtypes = [ctypes.c_int] * 2 + [pointer] * 5 + [count] * 4 + [real] * 3
    loaded.emulate_scale.argtypes = [ctypes.c_int, pointer, count, pointer]
    return loaded

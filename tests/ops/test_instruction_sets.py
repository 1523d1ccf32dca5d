"""A library built here runs on a processor without AVX-512 or AVX2: wide instructions stay where they are asked for."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

import pytest

from detkd.ops import _extension

# Registers that only wider instruction sets have, and the namespaces whose functions run on such processors alone.
WIDE = {r"%[xyz]mm(1[6-9]|2\d|3[01])\b|%zmm|%k[0-7]\b": ("avx512",), r"%ymm": ("avx512", "avx2")}


def misplaced(disassembly: str) -> Iterator[str]:
    """Find instructions of a wide set in functions that any processor runs."""
    function = ""
    for line in disassembly.splitlines():
        if header := re.match(r"[0-9a-f]+ <(.*)>:$", line):
            function = header[1]
            continue
        for registers, namespaces in WIDE.items():
            if re.search(registers, line) and not any(f"detkd::{name}::" in function for name in namespaces):
                yield f"{function}: {line.strip()}"


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump")
def test_wide_instructions_stay_in_their_kernels() -> None:
    command = ["objdump", "--disassemble", "--demangle", "--no-show-raw-insn", _extension._C.__file__]
    disassembly = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "%zmm" in disassembly
    assert list(misplaced(disassembly))[:5] == []


def test_a_shared_function_in_wide_instructions_is_found() -> None:
    move = "  10:\tvmovups (%rdi),"
    names = ("f(int)", "float detkd::avx512::f<int>(int)", "std::f(int)")
    narrow, wide, shared = (f"0000 <{name}>:\n{move}" for name in names)
    assert list(misplaced(f"{narrow}%xmm1\n{wide}%zmm1\n")) == []
    assert list(misplaced(f"{wide}%zmm1\n{shared}%zmm1\n")) == [f"std::f(int): {move.strip()}%zmm1"]
    assert len(list(misplaced(f"{shared}%ymm3\n{shared}%k2\n{shared}%xmm17\n"))) == 3

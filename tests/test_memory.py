"""Freed memory that is kept, and the peak of a step."""

from __future__ import annotations

import subprocess
import sys

import torch

from detkd.memory import peak_memory

CODE = """
import resource, sys, torch
from detkd.memory import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(48 * 2**20 // 4).fill_(1)  # above the 32 MiB to which glibc's own threshold adapts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
print([faults() for _ in range(40)][-1])  # the first few find their place among the interpreter's own objects
"""


def faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", CODE, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_kept_memory_is_not_mapped_anew() -> None:
    assert faults("keep") < 10
    assert faults("as it is") > 20  # one a page, or one for each 2 MiB where the system backs it by huge pages


def test_the_peak_is_of_what_lives_at_the_same_time() -> None:
    def step() -> None:
        first = torch.ones(1000)
        second = first * 2
        del first
        third = second + 1
        del second, third

    assert 8000 <= peak_memory(step) < 9000
    assert peak_memory(lambda: None) == 0

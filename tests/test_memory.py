"""Freed memory that is kept, and the peak of a step."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import torch

from detkd import memory
from detkd.memory import peak_memory

if TYPE_CHECKING:
    import pytest

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


def test_a_containers_files_are_given_up_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"memory.max": ["2000"], "memory.current": ["1800"], "memory.stat": ["anon 300", "inactive_file 1500"]}
    monkeypatch.setattr(memory, "_lines", lambda path: files.get(path.name, []))
    monkeypatch.setattr(memory, "_system_memory", lambda: 10_000)
    assert memory.available_memory() == 1700

"""Memory, time and steps, by hand."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import pytest
from torch import nn

from detkd.doctor.cost import check_batch, check_memory, check_steps, count_steps, estimate_time, scaled_memory
from detkd.memory import available_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 2**30


@pytest.fixture
def little_room() -> Iterator[int]:
    """The process may take half a GiB of addresses more, and no further."""
    pages = int(open("/proc/self/statm", encoding="utf-8").read().split()[0])  # noqa: SIM115
    before, room = resource.getrlimit(resource.RLIMIT_AS), GIB // 2
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, before[1]))
    yield room
    resource.setrlimit(resource.RLIMIT_AS, before)


def test_activations_grow_with_the_batch_and_parameters_do_not() -> None:
    # 100 parameters: 1200 bytes of gradients and moments; the other 800 are of 4 pictures.
    assert scaled_memory(2000, 4, 16, parameters=100) == 1200 + 4 * 800
    assert scaled_memory(2000, 4, 4, parameters=100) == 2000
    assert scaled_memory(1000, 4, 16, parameters=100) == 1000  # nothing but parameters


def test_more_memory_than_there_is_is_named(little_room: int) -> None:
    available = available_memory()
    assert 0 < available <= little_room
    found = check_memory(GIB, available)
    assert (found.severity, found.check) == ("error", "memory.short")
    assert "About 1.0 GiB" in found.detail
    assert "train.batch" in found.fix
    assert check_memory(int(0.9 * available), available).check == "memory.tight"
    assert check_memory(int(0.5 * available), available).severity == "ok"


def test_without_a_limit_the_system_is_what_there_is() -> None:
    assert available_memory() > GIB // 8


def test_steps_are_counted_with_the_last_small_batch() -> None:
    assert count_steps(205, 16, 40, gathered=1) == 13 * 40
    assert count_steps(205, 16, 30, gathered=4) == 97
    assert count_steps(3, 16, 1, gathered=4) == 1


def test_too_few_steps_are_named() -> None:
    found = check_steps(97, gathered=4)
    assert (found.severity, found.check) == ("warning", "steps.few")
    assert "97 steps" in found.detail
    assert "4 batches" in found.detail
    assert "nbs" in found.fix
    assert check_steps(1300, gathered=1).severity == "ok"


def test_statistics_of_two_pictures_are_named_unless_they_are_kept() -> None:
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    (found,) = check_batch(student, 2)
    assert (found.severity, found.check) == ("warning", "batch.small")
    assert not check_batch(student, 16)
    assert check_batch(student.eval(), 2)  # as a checkpoint comes; training changes it
    assert not check_batch(student.requires_grad_(False), 2)
    assert not check_batch(nn.Linear(2, 2), 1)


def test_time_is_the_median_batch_times_all_of_them() -> None:
    (found,) = estimate_time([0.5, 0.5, 30.0], 1200)
    assert "10 min" in found.detail
    assert "3 h" in estimate_time([9.0], 1200)[0].detail
    assert "6 s" in estimate_time([0.5], 12)[0].detail
    assert not estimate_time([], 12)

"""The compiled ops under many random calls, from several threads at once: the reference's numbers, and no leak."""

from __future__ import annotations

import random
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from detkd import ops
from detkd.ops import load_error

THREADS = 8
GROWTH = 64 * 2**20  # bytes that may come on top after the first calls; a leak of a call's tensors would be many times that
REDUCTIONS = ("none", "sum", "mean", "batchmean")
BOUNDS = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}  # relative to the largest value

pytestmark = pytest.mark.skipif(bool(load_error()), reason="there are no compiled ops")


def draw(chance: random.Random) -> tuple[str, Callable[..., Tensor], dict[str, Any], Tensor, Tensor]:
    """An op, its arguments, and a student and a teacher of any strides."""
    name = chance.choice(("kl_div", "binary_kl", "attention_transfer", "attention_mse", "standardized_mse"))
    dtype = chance.choice((torch.float32, torch.float32, torch.float16, torch.bfloat16))
    least = 3 if name == "standardized_mse" else 1  # of few values a deviation is near 0, and its quotient any number
    shape = [chance.randint(least, 5), chance.randint(1, 21), chance.randint(least, 6), chance.randint(least, 6)]
    generator = torch.Generator().manual_seed(chance.getrandbits(32))
    student, teacher = (_strided(torch.randn(shape, generator=generator).to(dtype), chance) for _ in range(2))
    arguments: dict[str, Any] = {}
    if name == "kl_div":
        dim = chance.randrange(4)
        arguments = {"dim": dim, "temperature": chance.choice((0.5, 1.0, 4.0)), "reduction": chance.choice(REDUCTIONS)}
        if chance.random() < 0.3:
            arguments["weight"] = torch.rand([size for at, size in enumerate(shape) if at != dim], generator=generator)
    elif name == "binary_kl":
        arguments = {"temperature": chance.choice((1.0, 2.0)), "beta": chance.choice((0.0, 1.0, 2.0))}
        arguments |= {"kind": chance.choice(("kl", "bce")), "reduction": chance.choice(REDUCTIONS)}
    elif name == "attention_transfer":
        arguments = {"p": chance.choice((1.0, 2.0, 3.0))}
    elif name == "attention_mse":
        arguments = {"temperature": chance.choice((0.5, 1.0)), "attention_gain": chance.choice((0.0, 0.1))}
    return name, vars(ops)[name], arguments, student, teacher


def _strided(x: Tensor, chance: random.Random) -> Tensor:
    """The same values in another order of memory, or with an offset that no vector is aligned to."""
    kind = chance.randrange(3)
    if kind == 0:
        order = chance.sample(range(4), 4)
        return x.permute(order).contiguous().permute([order.index(at) for at in range(4)])
    if kind == 1:
        return torch.cat((x.new_zeros(1), x.flatten()))[1:].view(x.shape)
    return x


def check(seed: int, calls: int) -> None:
    """Compare random calls with the reference."""
    chance = random.Random(seed)
    for number in range(calls):
        name, op, arguments, student, teacher = draw(chance)
        found = []
        for backend in ("fused", "reference"):
            leaf = student.detach().requires_grad_()
            loss = op(leaf, teacher, backend=backend, **arguments)
            loss.sum().backward()
            assert leaf.grad is not None
            found.append((loss.detach(), leaf.grad))
        for got, wanted in zip(*found, strict=True):
            allowed = BOUNDS[student.dtype] * (wanted.float().abs().max() + 1e-2)
            error = (got.float() - wanted.float()).abs().max()
            assert error <= allowed, (seed, number, name, arguments, tuple(student.shape), student.stride(), student.dtype)


def run(calls: int) -> int:
    """Share calls among threads; by how many bytes the process grew after the first ones."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(check, range(THREADS), [20] * THREADS))
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            list(pool.map(check, range(THREADS, 2 * THREADS), [calls // THREADS] * THREADS))
    finally:
        torch.set_num_threads(before)
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) * 1024


@pytest.mark.parametrize("calls", [1600, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(7200)])])
def test_random_calls_of_eight_threads_are_right_and_leave_nothing(calls: int) -> None:
    assert run(calls) < GROWTH

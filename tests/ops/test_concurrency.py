"""The fused ops in processes that train together, in several threads, and under autocast."""

from __future__ import annotations

import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from detkd import ops

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl_div": lambda s, t: ops.kl_div(s, t, 1, 2.0, backend="fused"),
    "binary_kl": lambda s, t: ops.binary_kl(s, t, 2.0, 1.0, "bce", backend="fused"),
    "attention_transfer": lambda s, t: ops.attention_transfer(s, t, backend="fused"),
    "attention_mse": lambda s, t: ops.attention_mse(s, t, attention_gain=0.1, backend="fused"),
    # By channel over the whole batch, which no process sees: each image is a batch of its own.
    "standardized_mse": lambda s, t: torch.stack(
        [ops.standardized_mse(s[i : i + 1], t[i : i + 1], backend="fused") for i in range(len(s))]
    ).mean(),
}
IMAGES, CHANNELS = 4, 6


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Conv2d(3, CHANNELS, 3, padding=1)


def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(IMAGES, 3, 9, 7, generator=generator), torch.randn(IMAGES, CHANNELS, 9, 7, generator=generator)


def gradients(student: nn.Module, images: Tensor, teacher: Tensor) -> dict[str, list[Tensor]]:
    found = {}
    for name, loss in LOSSES.items():
        student.zero_grad()
        loss(student(images), teacher).backward()
        found[name] = [p.grad.clone() for p in student.parameters() if p.grad is not None]
    return found


def work(rank: int, processes: int, port: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    images, teacher = batch()
    mine = slice(rank * IMAGES // processes, (rank + 1) * IMAGES // processes)
    found = gradients(DistributedDataParallel(model()), images[mine], teacher[mine])
    for name, expected in gradients(model(), images, teacher).items():
        assert len(found[name]) == len(expected) == 2
        for got, wanted in zip(found[name], expected, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-7, msg=lambda text, op=name: f"{op}: {text}")
    dist.destroy_process_group()


def test_two_processes_get_the_gradients_of_one() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(work, (2, port), nprocs=2)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [9, 300])  # below and above what one thread computes, and what memory is kept for
def test_several_threads_get_the_bits_of_one(name: str, size: int) -> None:
    student, teacher = torch.randn(2, 5, size, size), torch.randn(2, 5, size, size)

    def run(_: int) -> tuple[Tensor, Tensor]:
        leaf = student.clone().requires_grad_()
        loss = LOSSES[name](leaf, teacher)
        loss.backward()
        assert leaf.grad is not None
        return loss.detach(), leaf.grad

    loss, gradient = run(0)
    with ThreadPoolExecutor(4) as pool:
        for other_loss, other_gradient in pool.map(run, range(12)):
            assert torch.equal(loss, other_loss)
            assert torch.equal(gradient, other_gradient)


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_computes_the_loss_in_float32(name: str) -> None:
    student, (images, teacher) = model(), batch()
    with torch.autocast("cpu", torch.bfloat16):
        features = student(images)
        assert features.dtype == torch.bfloat16
        loss = LOSSES[name](features, teacher)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, LOSSES[name](features.float(), teacher))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in student.parameters())

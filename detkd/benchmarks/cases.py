"""The ops at shapes of detectors and segmenters, and how one would write them in PyTorch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from detkd import ops

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """An op at a shape, and how one would write it in PyTorch."""

    op: str
    label: str
    shape: tuple[int, ...]
    fused: Loss
    plain: Loss
    liger: Loss | None = None


def kl_case(shape: tuple[int, ...], dim: int, label: str = "") -> Case:
    """KL of softmaxes at T = 2, mean over positions."""

    def plain(s: Tensor, t: Tensor) -> Tensor:
        log_s, log_t = (s.float() / 2).log_softmax(dim), (t.float() / 2).log_softmax(dim)
        return F.kl_div(log_s, log_t, log_target=True, reduction="sum") * (4 * s.shape[dim] / s.numel())

    liger = liger_kl() if dim == len(shape) - 1 else None
    return Case("kl_div", label or "rows", shape, lambda s, t: ops.kl_div(s, t, dim, 2.0, backend="fused"), plain, liger)


def liger_kl() -> Loss | None:
    """Return the same of rows by Liger's kernel, which takes log-probabilities, or None where it is not installed."""
    if not torch.cuda.is_available() or importlib.util.find_spec("liger_kernel") is None:
        return None
    from liger_kernel.transformers.kl_div import LigerKLDIVLoss

    kl_div = LigerKLDIVLoss(reduction="batchmean", log_target=True)
    return lambda s, t: 4 * kl_div((s.float() / 2).log_softmax(-1), (t.float() / 2).log_softmax(-1))


def binary_case(temperature: float, beta: float) -> Case:
    """Bernoulli KL, or with a modulating factor the cross-entropy of `bckd`."""
    kind: Any = "bce" if beta else "kl"

    def plain(s: Tensor, t: Tensor) -> Tensor:
        x, z = s.float() / temperature, t.float() / temperature
        p = z.sigmoid()
        value = F.binary_cross_entropy_with_logits(x, p, reduction="none")
        if kind == "kl":
            value = value - F.binary_cross_entropy_with_logits(z, p, reduction="none")
        else:
            value = value * (p - x.sigmoid()).abs()
        return temperature**2 * value.mean()

    def fused(s: Tensor, t: Tensor) -> Tensor:
        return ops.binary_kl(s, t, temperature, beta, kind, backend="fused")

    return Case("binary_kl", f"{kind}, T {temperature:g}", (16, 80, 8400), fused, plain)


def transfer(s: Tensor, t: Tensor) -> Tensor:
    """Attention transfer as its authors write it."""
    maps = [F.normalize(x.float().pow(2).mean(1).flatten(1)) for x in (s, t)]
    return (maps[0] - maps[1]).pow(2).mean()


def focal(s: Tensor, t: Tensor) -> Tensor:
    """Squared error under the teacher's attention, with the attention loss, as in FGD."""
    s, t = s.float(), t.float()
    n, c, h, w = s.shape
    space = [h * w * (x.abs().mean(1).flatten(1) / 0.5).softmax(1) for x in (s, t)]
    depth = [c * (x.abs().mean((2, 3)) / 0.5).softmax(1) for x in (s, t)]
    error = ((s - t).pow(2) * space[1].view(n, 1, h, w) * depth[1].view(n, c, 1, 1)).sum()
    return (error + 0.1 * ((space[0] - space[1]).abs().sum() + (depth[0] - depth[1]).abs().sum())) / n


def pearson(s: Tensor, t: Tensor) -> Tensor:
    """PKD as its authors write it."""
    z = []
    for x in (s.float(), t.float()):
        rows = x.permute(1, 0, 2, 3).flatten(1)
        z.append((rows - rows.mean(1, keepdim=True)) / (rows.std(1, keepdim=True, correction=0) + 1e-6))
    return 0.5 * F.mse_loss(z[0], z[1])


def cases() -> list[Case]:
    """Return every shape that the documentation reports."""
    listed = [kl_case((n, c), 1) for n, c in ((67200, 80), (8400, 80), (4096, 1000), (65536, 21), (1024, 32000))]
    listed += [kl_case((16, 80, 8400), 1, "strided"), kl_case((4, 19, 128, 128), 1, "strided")]
    listed += [kl_case((2, 150, 128, 128), 1, "strided"), kl_case((16, 4, 16, 8400), 2, "DFL")]
    listed += [kl_case((8 * 256, 40 * 40), 1, "channel-wise"), kl_case((8 * 128, 80 * 80), 1, "channel-wise")]
    listed += [binary_case(temperature, beta) for temperature in (1.0, 2.0) for beta in (0.0, 1.0)]
    for shape in ((8, 256, 40, 40), (8, 128, 80, 80)):
        listed.append(Case("attention_transfer", "p 2", shape, _fused(ops.attention_transfer), transfer))
        listed.append(Case("attention_mse", "with L1", shape, _fused(ops.attention_mse, attention_gain=0.1), focal))
        listed.append(Case("standardized_mse", "", shape, _fused(ops.standardized_mse), pearson))
    return listed


def _fused(op: Callable[..., Tensor], **options: Any) -> Loss:
    return lambda s, t: op(s, t, **options, backend="fused")

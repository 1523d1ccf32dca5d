"""Time the fused ops against the same formulas in eager PyTorch and under torch.compile.

python tools/bench_ops.py [--device cpu|cuda] [--op kl_div ...] [--dtype float32|bfloat16|float16] [--output benchmarks]
python tools/bench_ops.py [--device cpu|cuda] --table benchmarks
python tools/bench_ops.py --static [--architecture sm_90 ...] [--output benchmarks]

Forward alone, and forward with backward. Contestants take turns, so that a change of the machine's mood meets them all;
figures are medians. Achieved bandwidth counts what any implementation must move at least: both inputs read once, the
gradient written once. Writes ops-<device>-<dtype>.json and .png, and prints a table. On a GPU Liger's kernel is timed too
where it is installed and has the op. --static needs no GPU: see cuda_static.py; it writes ops-cuda-static.json.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the table otherwise

import torch
import torch.nn.functional as F
from torch import Tensor

from detkd import ops
from detkd.cli import run
from detkd.errors import ArgumentError
from detkd.memory import peak_memory

Loss = Callable[[Tensor, Tensor], Tensor]
CONTESTANTS = ("detkd", "eager", "compile")


@dataclass(frozen=True)
class Case:
    """An op at a shape, and how one would write it in PyTorch."""

    op: str
    label: str
    shape: tuple[int, ...]
    fused: Loss
    plain: Loss
    liger: Loss | None = None


@dataclass(frozen=True)
class Result:
    """Medians of one case; times in milliseconds, bandwidth in 10^9 bytes a second."""

    op: str
    label: str
    shape: tuple[int, ...]
    forward: dict[str, float]
    forward_backward: dict[str, float]
    gigabytes_per_second: float
    extra_memory: dict[str, float]  # peak during forward and backward, in sizes of the gradient


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


def measure(case: Case, dtype: torch.dtype, device: str, repeats: int) -> Result:
    """Time all contestants on one case."""
    torch.manual_seed(0)
    torch._dynamo.reset()
    gc.collect()
    student = torch.randn(case.shape, device=device).to(dtype).requires_grad_()
    teacher = torch.randn(case.shape, device=device).to(dtype)
    losses = {"detkd": case.fused, "eager": case.plain, "compile": torch.compile(case.plain, dynamic=False)}
    if device == "cuda" and case.liger is not None:
        losses["liger"] = case.liger

    def forward(loss: Loss) -> None:
        with torch.no_grad():
            loss(student, teacher)

    def both(loss: Loss) -> None:
        student.grad = None
        loss(student, teacher).backward()

    times = {step: _medians(losses, step, device, repeats) for step in (forward, both)}
    peaks = {}
    for name, loss in losses.items():
        student.grad = None  # or its end, within the step, would be taken for memory that the step gave back
        peaks[name] = peak_memory(lambda loss=loss: both(loss), device)
    floor = 3 * student.numel() * student.element_size()
    return Result(
        case.op,
        case.label,
        case.shape,
        times[forward],
        times[both],
        floor / times[both]["detkd"] / 1e6,
        {name: peak / (floor / 3) for name, peak in peaks.items()},
    )


def _medians(losses: dict[str, Loss], step: Callable[[Loss], None], device: str, repeats: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in losses}
    for turn in range(repeats + 2):
        for name, loss in losses.items():
            started = _now(device)
            step(loss)
            if turn >= 2:
                times[name].append(1e3 * (_now(device) - started))
    return {name: statistics.median(values) for name, values in times.items()}


def _now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def copy_bandwidth(device: str) -> float:
    """Return the bytes a second of a large copy, read and written ones together, in 10^9."""
    source = torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        started = _now(device)
        target.copy_(source)
        times.append(_now(device) - started)
    return 2 * source.numel() * 4 / statistics.median(times) / 1e9


def show(results: list[Result], copy: float) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    timed = [*CONTESTANTS, *(["liger"] if any("liger" in r.forward_backward for r in results) else [])]
    table = Table("op", "", "shape", *(f"{name} ms" for name in timed), "× eager", "× compile", "GB/s", "memory")
    for r in results:
        ms = r.forward_backward
        gains = [f"{ms[name] / ms['detkd']:.1f}" for name in CONTESTANTS[1:]]
        times = [f"{ms[name]:.2f}" if name in ms else "" for name in timed]
        row = [r.op, r.label, "×".join(map(str, r.shape)), *times, *gains]
        table.add_row(*row, f"{r.gigabytes_per_second:.0f}", f"{r.extra_memory['detkd']:.2f}")
    console = Console(width=140)
    console.print(table)
    for name in CONTESTANTS[1:]:
        gain = statistics.geometric_mean(r.forward_backward[name] / r.forward_backward["detkd"] for r in results)
        console.print(f"geometric mean over {name}: {gain:.1f}×", highlight=False)
    console.print(f"copy: {copy:.0f} GB/s; memory is the peak in sizes of the gradient", highlight=False)


def markdown(folder: Path, device: str) -> str:
    """Return the table of docs/kernels.md from the records of a float32 and a bfloat16 run."""
    records = [json.loads((folder / f"ops-{device}-{dtype}.json").read_text()) for dtype in ("float32", "bfloat16")]
    contestants = list(records[0]["results"][0]["forward_backward"])
    others = contestants[1:]
    heads = ["op", "shape", *contestants, *(f"× {name}" for name in others), "memory", "detkd, bfloat16"]
    lines = [" | ".join(heads), "|".join(["---", "---", *["--:"] * (len(heads) - 2)])]
    for single, half in zip(*(record["results"] for record in records), strict=True):
        ms = single["forward_backward"]
        cells = [f"`{single['op']}` {single['label']}", "×".join(map(str, single["shape"]))]
        cells += [f"{ms[name]:.2f}" for name in contestants] + [f"{ms[name] / ms['detkd']:.1f}" for name in others]
        cells += [f"{single['extra_memory']['detkd']:.2f}", f"{half['forward_backward']['detkd']:.2f}"]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def plot(results: list[Result], title: str, path: Path) -> None:
    """Draw how many times faster detkd is, in log scale."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.42 * len(results) + 1.6))
    for offset, name, colour in ((-0.2, "eager", "#9aa5b1"), (0.2, "compile", "#1f6feb")):
        gains = [r.forward_backward[name] / r.forward_backward["detkd"] for r in results]
        places = [i + offset for i in range(len(results))]
        axes.barh(places, gains, 0.38, color=colour, label=f"× {name}")
        for place, gain in zip(places, gains, strict=True):
            axes.text(gain * 1.04, place, f"{gain:.1f}", va="center", fontsize=7)
    names = [f"{r.op} {r.label}  {'×'.join(map(str, r.shape))}" for r in results]
    axes.set(xscale="log", yticks=range(len(results)), xlabel="times faster, forward and backward", title=title)
    axes.set_yticklabels(names, fontsize=8)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.legend(loc="lower right", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def machine(device: str) -> str:
    """Return the name of the device."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {torch.get_num_threads()} threads"


def describe(arguments: argparse.Namespace) -> None:
    """Show what compilers say about the CUDA kernels."""
    import cuda_static

    architectures = arguments.architecture or cuda_static.ARCHITECTURES
    if unknown := set(architectures) - set(cuda_static.ARCHITECTURES):
        raise ArgumentError(
            f"Expected `--architecture` to be one of {list(cuda_static.ARCHITECTURES)}, but got {sorted(unknown)}."
        )
    kernels, predictions = cuda_static.report([(c.op, c.label, c.shape) for c in cases()], architectures)
    cuda_static.show(kernels, predictions)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        cuda_static.write(arguments.output / "ops-cuda-static.json", kernels, predictions)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--op", action="append", help="an op, as often as wanted (default: all)")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--static", action="store_true", help="describe the CUDA kernels without running them")
    parser.add_argument("--architecture", action="append", help="for --static, as often as wanted (default: all six)")
    parser.add_argument("--repeats", type=int, default=9, help="timed rounds of each case (default 9)")
    parser.add_argument("--table", type=Path, help="only print docs/kernels.md's table from the records in this folder")
    parser.add_argument("--output", type=Path, help="folder for the JSON and the plot (default: print only)")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(markdown(arguments.table, arguments.device))
        return
    if arguments.static:
        describe(arguments)
        return
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("Expected `--device` to be there, but torch finds no CUDA device. Use --device cpu.")
    known = {case.op for case in cases()}
    if unknown := set(arguments.op or ()) - known:
        raise ArgumentError(f"Expected `--op` to be one of {sorted(known)}, but got {sorted(unknown)}.")

    copy = copy_bandwidth(arguments.device)
    results = []
    for case in cases():
        if arguments.op and case.op not in arguments.op:
            continue
        results.append(measure(case, getattr(torch, arguments.dtype), arguments.device, arguments.repeats))
        ms = results[-1].forward_backward
        print(case.op, case.label, case.shape, {name: round(value, 2) for name, value in ms.items()}, flush=True)
    show(results, copy)
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
        stem = arguments.output / f"ops-{arguments.device}-{arguments.dtype}"
        about = {"machine": machine(arguments.device), "torch": torch.__version__, "dtype": arguments.dtype}
        record = {**about, "copy_gigabytes_per_second": copy, "results": [asdict(r) for r in results]}
        stem.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
        plot(results, f"{about['machine']}, {arguments.dtype}", stem.with_suffix(".png"))


if __name__ == "__main__":
    run(main)

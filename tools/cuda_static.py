"""What compilers say about the CUDA kernels, for machines without a GPU.

ptxas says how many registers, how much shared memory, stack and spilling each instantiation takes; cuobjdump, how wide its
global loads and stores are; the emulation, which kernels a benchmark's shape launches and how many bytes these move. From
the bytes follows a time at an H100's bandwidth: a bound, not a measurement.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sysconfig
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import torch
from cuda_emulation import ROOT, Emulation, Launch

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Iterable

Case = tuple[str, str, tuple[int, ...]]  # op, label, shape
ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
H100_BYTES_PER_SECOND = 3.0e12
WARP = 32


class Limits(NamedTuple):
    """What a multiprocessor has room for; registers number 65,536 on all."""

    warps: int
    blocks: int
    shared: int


# CUDA C++ Programming Guide, technical specifications for each compute capability.
LIMITS = {
    "sm_80": Limits(64, 32, 164 << 10),
    "sm_86": Limits(48, 16, 100 << 10),
    "sm_89": Limits(48, 24, 100 << 10),
    "sm_90": Limits(64, 32, 228 << 10),
    "sm_100": Limits(64, 32, 228 << 10),
    "sm_120": Limits(48, 32, 100 << 10),
}


@dataclass(frozen=True)
class Kernel:
    """An instantiation on one architecture. `loads` and `stores` count global accesses in SASS by their bits."""

    architecture: str
    name: str
    registers: int
    shared: int
    stack: int
    spill_stores: int
    spill_loads: int
    loads: dict[int, int] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)
    local: int = 0  # accesses to local memory in SASS
    threads: int = 0  # of a block, the most that a benchmark's shape launches; 0 where none does
    occupancy: float = 0.0  # then

    @property
    def vectors(self) -> bool:
        """Whether the instantiation is one for aligned memory: its width is not 1."""
        return bool(re.search(r"<\w+, [48]\b", self.name))

    def faults(self) -> list[str]:
        """Say what keeps the kernel from the memory's speed."""
        found = []
        if self.spill_stores or self.spill_loads:
            found.append(f"spills {self.spill_stores} + {self.spill_loads} bytes")
        if self.stack or self.local:
            found.append(f"uses local memory: a stack of {self.stack} bytes, {self.local} accesses")
        if self.vectors and not self.loads.get(128):
            found.append("has no 128-bit loads")
        if self.vectors and self.writes_gradient and not self.stores.get(128):
            found.append("has no 128-bit stores")
        return [f"{self.name} on {self.architecture} {fault}" for fault in found]

    @property
    def writes_gradient(self) -> bool:
        """Whether it does more than sum up."""
        return not re.match("attention_map_|focal_sums_|moments_", self.name)


@dataclass(frozen=True)
class Prediction:
    """One benchmark case; bytes are per logit or value, times in milliseconds."""

    op: str
    label: str
    shape: tuple[int, ...]
    dtype: str
    kernels: list[str]
    floor_bytes: float
    bytes: float
    floor: float
    predicted: float


def find_tool(name: str) -> str:
    """Return a tool of the CUDA toolkit, from PATH or from its package on PyPI."""
    packaged = sorted(Path(sysconfig.get_path("purelib")).glob(f"nvidia/cu*/bin/{name}"))
    found = shutil.which(name) or (str(packaged[-1]) if packaged else None)
    if found is None:
        raise ArgumentError(f"Expected `{name}` on PATH or in this environment. Use pip install nvidia-cuda-{name}.")
    return found


def analyse(architectures: Iterable[str], sources: Iterable[Path] = ()) -> list[Kernel]:
    """Compile `sources`, by default all of csrc/cuda, and describe every kernel in them once an architecture."""
    sources = list(sources) or sorted((ROOT / "csrc/cuda").glob("*.cu"))
    jobs = [(source, architecture) for architecture in architectures for source in sources]
    with TemporaryDirectory() as folder, ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda job: _analyse_file(*job, Path(folder) / f"{job[0].stem}.{job[1]}.cubin"), jobs)
        kernels = {(kernel.architecture, kernel.name): kernel for part in found for kernel in part}
    return list(kernels.values())


def _analyse_file(source: Path, architecture: str, cubin: Path) -> list[Kernel]:
    command = [find_tool("nvcc"), "-O3", "-std=c++20", f"-arch={architecture}", "-cubin", "-Xptxas", "-v"]
    built = subprocess.run([*command, "-o", str(cubin), str(source)], capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise ArgumentError(f"Expected {source.name} to compile for {architecture}:\n{built.stderr}")
    find_tool("nvdisasm")  # which cuobjdump calls, from PATH or from beside it
    command = [find_tool("cuobjdump"), "--dump-sass", str(cubin)]
    sass = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    accesses = count_accesses(_demangle(sass))
    return [replace(kernel, **accesses[kernel.name]) for kernel in read_ptxas(_demangle(built.stderr), architecture)]


def _demangle(text: str) -> str:
    return subprocess.run([find_tool("c++filt")], input=text, capture_output=True, text=True, check=True).stdout


def _plain_name(name: str) -> str:
    """Leave away what is the same everywhere: the namespace, types of arguments, the return type."""
    return re.sub(r"detkd::|\(anonymous namespace\)::|^void ", "", name.strip()).split("(")[0]


def read_ptxas(text: str, architecture: str) -> list[Kernel]:
    """Read what ``ptxas -v`` prints."""
    pattern = (
        r"Function properties for ([^\n]+)\n\s+(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
        r"\n[^\n]*Used (\d+) registers([^\n]*)"
    )
    kernels = []
    for name, stack, stores, loads, registers, rest in re.findall(pattern, text):
        shared = re.search(r"(\d+) bytes smem", rest)
        sizes = int(registers), int(shared[1]) if shared else 0, int(stack), int(stores), int(loads)
        kernels.append(Kernel(architecture, _plain_name(name), *sizes))
    return kernels


def count_accesses(sass: str) -> dict[str, dict[str, object]]:
    """Count each function's global accesses by width, and those to local memory."""
    counts: dict[str, dict[str, object]] = {}
    for part in sass.split("Function : ")[1:]:
        name, _, body = part.partition("\n")
        by_kind = {kind: Counter(map(_bits, re.findall(rf"\b{kind}\.E([.\w]*)", body))) for kind in ("LDG", "STG")}
        local = len(re.findall(r"\b(?:LDL|STL)\b", body))
        counts[_plain_name(name)] = {"loads": dict(by_kind["LDG"]), "stores": dict(by_kind["STG"]), "local": local}
    return counts


def _bits(modifiers: str) -> int:
    width = re.search(r"\.[US]?(8|16|64|128)\b", modifiers)
    return int(width[1]) if width else 32


def occupancy(kernel: Kernel, threads: int, dynamic: int) -> float:
    """Return the share of a multiprocessor's warps that fit at a time."""
    limits = LIMITS[kernel.architecture]
    warps = -(-threads // WARP)
    # Registers are given out by 256 to a warp, warps by fours; each block takes a KiB of shared memory for the system.
    registers = -(-kernel.registers * WARP // 256) * 256
    by_registers = (65536 // registers // 4 * 4) // warps
    by_shared = limits.shared // (kernel.shared + dynamic + 1024)
    return min(limits.blocks, limits.warps // warps, by_registers, by_shared) * warps / limits.warps


def predict(case: Case, dtype: torch.dtype, launches: list[Launch], values: int) -> Prediction:
    """Scale what an emulated run over `values` logits or values moved to the whole shape."""
    op, label, shape = case
    size, numel = dtype.itemsize, torch.Size(shape).numel()
    # Both inputs once and the gradient; attention needs a whole image before it can weight the inputs: once more.
    floor = size * {"attention_transfer": 4, "attention_mse": 5}.get(op, 3)
    moved = sum(launch.moved for launch in launches) / values
    kernels = [launch.kernel for launch in launches]
    times = [1e3 * count * numel / H100_BYTES_PER_SECOND for count in (floor, moved)]
    return Prediction(op, label, shape, str(dtype).removeprefix("torch."), kernels, floor, moved, *times)


def emulate(emulation: Emulation, case: Case, dtype: torch.dtype) -> tuple[list[Launch], int]:
    """Run an op on a piece of a benchmark's shape that takes the same kernels; return launches, and how many values."""
    op, label, shape = case
    if op == "kl_div":
        x = _piece(shape, 2 if label == "DFL" else 1).to(dtype)
        emulation.kl_div(x, x, 2.0, None, True)
    elif op == "binary_kl":
        x = torch.zeros(1, 1 << 14, dtype=dtype)
        emulation.binary_kl(x, x, 2.0, 0.0, "kl", None, True)
    else:
        x = torch.ones(1, 32, shape[2] * shape[3], dtype=dtype)
        options = {"attention_transfer": (2.0,), "attention_mse": (0.5, 0.1), "standardized_mse": (1e-6,)}[op]
        emulation.on_maps(op, x, x, None, *options)
    return emulation.launches(), x.numel()


def _piece(shape: tuple[int, ...], dim: int) -> torch.Tensor:
    """A few positions of logits: whole blocks of them."""
    classes, inner = shape[dim], torch.Size(shape[dim + 1 :]).numel()
    if inner > 1:
        return torch.zeros(1, classes, 640)
    return torch.zeros(256 if classes < 100 else 8, classes, 1)


def report(cases: Iterable[Case], architectures: Iterable[str]) -> tuple[list[Kernel], list[Prediction]]:
    """Describe all kernels, and predict all cases in float32 and bfloat16."""
    with TemporaryDirectory() as folder:
        emulation = Emulation(Path(folder))
        predictions: list[Prediction] = []
        launched: dict[str, Launch] = {}
        for case in cases:
            for dtype in (torch.float32, torch.bfloat16):
                launches, values = emulate(emulation, case, dtype)
                predictions.append(predict(case, dtype, launches, values))
                for launch in launches:
                    largest = launched.setdefault(launch.kernel, launch)
                    launched[launch.kernel] = max(largest, launch, key=lambda x: x.threads)
    kernels = []
    for kernel in analyse(architectures):
        if (launch := launched.get(kernel.name)) is not None:
            share = occupancy(kernel, launch.threads, launch.shared)
            kernel = replace(kernel, threads=launch.threads, occupancy=share)  # noqa: PLW2901
        kernels.append(kernel)
    return kernels, predictions


def write(path: Path, kernels: list[Kernel], predictions: list[Prediction]) -> None:
    """Write JSON, a line for each kernel and each case."""
    said = subprocess.run([find_tool("nvcc"), "--version"], capture_output=True, text=True, check=True).stdout
    release = re.search(r"V([\d.]+)", said)
    head = {"nvcc": release[1] if release else "", "h100_bytes_per_second": H100_BYTES_PER_SECOND}
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for key, rows in (("cases", predictions), ("kernels", kernels)):
        lines = ",\n".join(json.dumps(asdict(row)) for row in rows)
        parts.append(f"{json.dumps(key)}: [\n{lines}\n]")
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def show(kernels: list[Kernel], predictions: list[Prediction]) -> None:
    """Print both tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console(width=150)
    table = Table("", "kernel", "regs", "shared", "stack", "spills", "threads", "occupancy", "loads", "stores")
    for k in kernels:
        widths = ["  ".join(f"{n}×{bits}" for bits, n in sorted(x.items(), reverse=True)) for x in (k.loads, k.stores)]
        share = f"{100 * k.occupancy:.0f} %" if k.threads else ""
        spills, threads = f"{k.spill_stores}+{k.spill_loads}", str(k.threads or "")
        table.add_row(
            k.architecture, k.name, str(k.registers), str(k.shared), str(k.stack), spills, threads, share, *widths
        )
    console.print(table)
    table = Table("op", "", "shape", "type", "bytes", "floor", "H100 ms, 3.0 TB/s", "floor ms")
    for p in predictions:
        numbers = [f"{p.bytes:.1f}", f"{p.floor_bytes:.0f}", f"{p.predicted:.4f}", f"{p.floor:.4f}"]
        table.add_row(p.op, p.label, "×".join(map(str, p.shape)), p.dtype, *numbers)
    console.print(table)
    console.print("Times follow from bytes alone: no kernel was run on a GPU.", highlight=False)

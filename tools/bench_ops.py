"""``detkd bench``, and what needs the source tree beside it.

    python tools/bench_ops.py [OPTIONS OF detkd bench]
    python tools/bench_ops.py [--device cpu|cuda] --table benchmarks
    python tools/bench_ops.py --static [--architecture sm_90 ...] [--output benchmarks]

--table prints the table of docs/kernels.md from two records. --static describes the CUDA kernels without a GPU: see
cuda_static.py; it writes ops-cuda-static.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from detkd.benchmarks.cases import cases
from detkd.cli import run
from detkd.commands.bench import bench, build_parser
from detkd.commands.speaking import speaking
from detkd.errors import ArgumentError

if TYPE_CHECKING:
    import argparse


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
    parser = build_parser()
    parser.prog, parser.description = "bench_ops.py", __doc__
    parser.add_argument("--static", action="store_true", help="describe the CUDA kernels without running them")
    parser.add_argument("--architecture", action="append", help="for --static, as often as wanted (default: all six)")
    parser.add_argument("--table", type=Path, help="only print docs/kernels.md's table from the records in this folder")
    arguments = parser.parse_args()
    if arguments.table is not None:
        print(markdown(arguments.table, arguments.device))
    elif arguments.static:
        describe(arguments)
    else:
        with speaking(arguments):
            bench(arguments)


if __name__ == "__main__":
    run(main)

"""Time the fused ops against the same formulas in eager PyTorch and under torch.compile, on this machine.

    detkd bench [--device cpu|cuda] [--op NAME ...] [--dtype float32|bfloat16|float16] [--output FOLDER]

Forward alone, and forward with backward. Contestants take turns by blocks of two untimed and six timed calls; figures are
medians of all timed calls. Achieved bandwidth counts what any implementation must move at least: both inputs read once, the
gradient written once. --output writes ops-<device>-<dtype>.json and .png. On a GPU Liger's kernel is timed too where it is
installed and has the op.

Examples:
    detkd bench
    detkd bench --op kl_div --op binary_kl --dtype bfloat16 --output benchmarks
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking
from detkd.errors import ArgumentError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd bench", description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="(default: cpu)")
    parser.add_argument("--op", action="append", help="an op, as often as wanted (default: all)")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], default="float32", help="of the inputs (default: float32)"
    )
    parser.add_argument(
        "--repeats", type=int, default=5, help="rounds of a case, each a block of calls of every contestant (default: 5)"
    )
    parser.add_argument("--output", type=Path, help="folder for the JSON and the plot (default: print only)")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Time, and show the table."""
    arguments = build_parser().parse_args(argv)
    with speaking(arguments):
        bench(arguments)


def bench(arguments: argparse.Namespace) -> None:
    """Time the cases that the command line asks for.

    Raises:
        ArgumentError: If there is no such op, or no such device.
    """
    from dataclasses import asdict

    import torch

    from detkd.benchmarks.cases import cases
    from detkd.benchmarks.tables import plot, results_table, summary
    from detkd.benchmarks.timing import copy_bandwidth, machine, measure
    from detkd.files import write_json
    from detkd.report.reporter import reporter

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("Expected `--device` to be there, but torch finds no CUDA device. Use --device cpu.")
    if arguments.repeats < 1:
        raise ArgumentError(f"Expected `--repeats` to be 1 or more, but got {arguments.repeats}.")
    known = {case.op for case in cases()}
    if unknown := set(arguments.op or ()) - known:
        raise ArgumentError(f"Expected `--op` to be one of {sorted(known)}, but got {sorted(unknown)}.")
    chosen = [case for case in cases() if not arguments.op or case.op in arguments.op]
    copy = copy_bandwidth(arguments.device)
    results = []
    with reporter().counting("ops", len(chosen), done=0, unit="cases") as counting:
        for case in chosen:
            results.append(measure(case, getattr(torch, arguments.dtype), arguments.device, arguments.repeats))
            counting.finished(f"{case.op} {case.label} {case.shape}")
    about = {"machine": machine(arguments.device), "torch": torch.__version__, "dtype": arguments.dtype}
    record = {**about, "copy_gigabytes_per_second": copy, "results": [asdict(result) for result in results]}
    reporter().result({"event": "result", **record}, results_table(results), *summary(results, copy))
    if arguments.output is not None:
        stem = arguments.output / f"ops-{arguments.device}-{arguments.dtype}"
        write_json(stem.with_suffix(".json"), record)
        plot(results, f"{about['machine']}, {arguments.dtype}", stem.with_suffix(".png"))

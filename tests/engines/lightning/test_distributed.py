"""Two processes with gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch


def run(
    data: Path, folder: Path, processes: int, *, exact: bool, main: str = "distributed_main.py", **more: Any
) -> tuple[list[dict[str, Any]], str]:
    """Train; returns what each process ended with, and what all of them printed."""
    folder.mkdir()
    job = {"data": str(data), "folder": str(folder), "processes": processes, "exact": exact, **more}
    script = [str(Path(__file__).with_name(main)), json.dumps(job)]
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"] if processes > 1 else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run([sys.executable, *launch, *script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(processes)], done.stdout


def test_two_processes_give_what_one_gives(data: Path, tmp_path: Path) -> None:
    (one,), _ = run(data, tmp_path / "one", 1, exact=True)
    assert one["history"][0]["metrics/mAP50-95(B)"] == pytest.approx(0.5)  # every disc, no square
    (first, second), printed = run(data, tmp_path / "two", 2, exact=True)
    for part in ("student", "aligner"):
        for name, value in one[part].items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], value, rtol=1e-3, atol=1e-5)
    for alone, together in zip(one["history"], first["history"], strict=True):
        keys = [key for key in alone if key != "time"]
        assert [together[key] for key in keys] == pytest.approx([alone[key] for key in keys], rel=1e-3, abs=1e-5)
    assert printed.count("run: epoch") == 2  # one process speaks
    assert (tmp_path / "two" / "run" / "lightning" / "best.safetensors").is_file()


def test_processes_agree_where_each_draws_its_own_and_a_term_stops(data: Path, tmp_path: Path) -> None:
    (first, second), _ = run(data, tmp_path / "two", 2, exact=False)
    for part in ("student", "aligner"):
        for name, value in first[part].items():
            assert torch.equal(second[part][name], value), name
    assert first["history"][0]["train/features"] > 0 == first["history"][1]["train/features"]
    assert [{**row, "time": 0} for row in first["history"]] == [{**row, "time": 0} for row in second["history"]]

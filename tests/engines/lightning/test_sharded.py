"""Two processes with gloo share out what they train."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from detkd.engines.families import FAMILIES
from tests.engines.lightning import sharded_main
from tests.engines.segmented import write_discs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

ADAM = {"name": "adamw", "lr": 0.003, "momentum": 0.9, "ema": 0.9}
JOBS: dict[str, dict[str, Any]] = {
    "rcnn ddp": {"kind": "rcnn", "strategy": "ddp"},
    "rcnn fsdp": {"kind": "rcnn", "strategy": "fsdp"},
    "unet ddp": {"kind": "unet", "strategy": "ddp", "balance": "uncertainty"},
    "unet fsdp": {"kind": "unet", "strategy": "fsdp", "balance": "uncertainty"},
    "unet unbroken": {"kind": "unet", "strategy": "fsdp", "optim": ADAM},
    "unet first": {"kind": "unet", "strategy": "fsdp", "optim": ADAM, "epochs": 1, "folder": "unet"},
    "unet resumed": {"kind": "unet", "strategy": "fsdp", "optim": ADAM, "folder": "unet", "resume": True},
    "mean fsdp": {"kind": "mean", "strategy": "fsdp"},
    "mean ddp first": {"kind": "mean", "strategy": "ddp", "epochs": 1, "folder": "from ddp"},
    "mean ddp resumed": {"kind": "mean", "strategy": "fsdp", "folder": "from ddp", "resume": True},
    "teacher": {"kind": "shared"},
    "mean fsdp first": {"kind": "mean", "strategy": "fsdp", "epochs": 1, "folder": "from fsdp"},
}


@pytest.fixture(scope="module", name="folder")
def train_all(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all jobs, run one after another by two processes: most of their time is the start."""
    folder = tmp_path_factory.mktemp("sharded")
    discs = write_discs(folder / "discs", side=64)
    jobs = {name: {**job, "data": str(discs if job["kind"] == "unet" else data)} for name, job in JOBS.items()}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", sharded_main.__file__]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(
        [*launch, json.dumps(jobs), str(folder)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def ended(folder: Path, job: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each process ended a job with."""
    first, second = (torch.load(folder / f"{job}.{rank}.pt", weights_only=True) for rank in range(2))
    return first, second


def compare(one: Mapping[str, Any], other: Mapping[str, Any], **tolerance: float) -> None:
    """Two runs have come to the same, as far as that goes."""
    for part in ("student", "learnt"):
        assert one[part].keys() == other[part].keys()
        for name, value in one[part].items():
            torch.testing.assert_close(other[part][name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")
    for alone, together in zip(one["history"], other["history"], strict=True):
        keys = [key for key in alone if key != "time"]
        assert [together[key] for key in keys] == pytest.approx([alone[key] for key in keys], rel=1e-3, abs=1e-3)
    assert len(one["weights"]) == len(other["weights"])


def numbers(state: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in state.values())


@pytest.mark.parametrize("kind", ["rcnn", "unet"])
def test_sharded_processes_come_to_what_others_come_to(folder: Path, kind: str) -> None:
    """A detector's aligners, generators and second stage; a U-Net with a term that stops, and weights that are learnt."""
    whole, _ = ended(folder, f"{kind} ddp")
    first, second = ended(folder, f"{kind} fsdp")
    compare(whole, first, rtol=1e-3, atol=1e-5)
    for name, value in first["learnt"].items():
        assert torch.equal(second["learnt"][name], value), name
    assert [{**row, "time": 0} for row in first["history"]] == [{**row, "time": 0} for row in second["history"]]
    fresh, teacher = sharded_main.models(kind)
    assert all(torch.equal(value, first["teacher"][name]) for name, value in teacher.state_dict().items())
    start = dict(fresh.named_parameters())
    moved = [name for name, value in start.items() if not torch.equal(value, first["student"][name])]
    assert len(moved) > 0.9 * len(start)


@pytest.mark.parametrize("kind", ["rcnn", "unet"])
def test_each_process_holds_about_half(folder: Path, kind: str) -> None:
    whole, _ = ended(folder, f"{kind} ddp")
    both = ended(folder, f"{kind} fsdp")
    for part in ("student", "learnt"):
        shares = [process["held"][part] / whole["held"][part] for process in both]
        assert sum(shares) == pytest.approx(1, abs=2e-3)  # weights that are learnt are single numbers, which both have
        assert max(shares) < 0.52
    # Of teachers, what is whole while the terms are computed; parts lie apart.
    assert max(process["held"]["teacher"] for process in both) < 0.1 * whole["held"]["teacher"]


def test_a_teacher_that_is_shared_out_says_the_same_and_is_whole_again(folder: Path) -> None:
    for process in ended(folder, "teacher"):
        assert process["left"] < 0.05 * process["total"]
        assert process["parts"] == pytest.approx(process["total"] / 2, rel=0.05)
        assert process["with gradients"] > 0  # its backward pass would need it
        assert process["same"]
        assert process["restored"]
        assert process["strides"]
        assert process["hooks"] == 0


def test_two_processes_give_what_one_gives(folder: Path, data: Path, tmp_path: Path) -> None:
    one = sharded_main.train({"kind": "mean", "strategy": "auto", "data": str(data)}, tmp_path / "one")
    for job in ("mean fsdp", "mean ddp resumed"):
        first, second = ended(folder, job)
        compare(one, first, rtol=1e-3, atol=1e-5)
        compare(first, second, rtol=0, atol=0)
    # And one goes on with what two have begun.
    job = {"kind": "mean", "strategy": "auto", "data": str(data), "resume": True}
    compare(one, sharded_main.train(job, folder / "from fsdp"), rtol=1e-3, atol=1e-5)


def test_a_resumed_run_ends_as_an_unbroken_one(folder: Path) -> None:
    unbroken, resumed = ended(folder, "unet unbroken"), ended(folder, "unet resumed")
    for whole, cut in zip(unbroken, resumed, strict=True):
        for part in ("student", "learnt"):
            for name, value in whole[part].items():
                if "running" not in name:  # statistics of the second process are nobody's
                    assert torch.equal(cut[part][name], value), name
        assert [{**row, "time": 0} for row in cut["history"]] == [{**row, "time": 0} for row in whole["history"]]
    for name in ("last.ckpt", "best.safetensors"):
        assert (folder / "unet" / "lightning" / name).is_file()


def test_checkpoints_hold_whole_tensors_of_the_student_alone(folder: Path) -> None:
    for job, kind in (("unet unbroken", "unet"), ("rcnn fsdp", "rcnn")):
        plain, _ = sharded_main.models(kind)
        checkpoint = torch.load(folder / job / "lightning" / "last.ckpt", weights_only=True)
        plain.load_state_dict(checkpoint["state_dict"])
        first, _ = ended(folder, job)
        assert all(torch.equal(value, first["student"][name]) for name, value in plain.state_dict().items())
        assert checkpoint["distiller"].keys() >= first["learnt"].keys()
        moments = [value for state in checkpoint["optimizer_states"][0]["state"].values() for value in state.values()]
        assert all(type(moment) is torch.Tensor for moment in moments)
        best = load_file(folder / job / "lightning" / "best.safetensors")
        assert numbers(best) == numbers(plain.state_dict())
        family = FAMILIES["unet" if kind == "unet" else "torchvision"]
        loaded = family.load(folder / job / "lightning" / "best.safetensors", 64).state_dict()
        assert loaded.keys() == checkpoint["state_dict"].keys()
    # Where weights are averaged, the best is the average.
    average = torch.load(folder / "unet unbroken" / "lightning" / "last.ckpt", weights_only=True)["callbacks"]
    (state,) = [value["average"] for key, value in average.items() if key.startswith("Averaging")]
    assert all(type(value) is torch.Tensor for value in state.values())
    saved = load_file(folder / "unet unbroken" / "lightning" / "best.safetensors")
    rows = [row["metrics/AP"] for row in ended(folder, "unet unbroken")[0]["history"]]
    if rows[1] > rows[0]:
        assert all(torch.equal(saved[name], state[f"module.{name}"]) for name in saved)

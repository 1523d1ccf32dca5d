"""Two processes with gloo train a U-Net."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from tests.engines.lightning.test_distributed import run
from tests.engines.segmented import write_discs

if TYPE_CHECKING:
    from pathlib import Path

MAIN = "segmenter_main.py"


def test_two_processes_give_what_one_gives(tmp_path: Path) -> None:
    data = write_discs(tmp_path / "data", side=64)  # without any margin, all pictures count the same
    (one,), _ = run(data, tmp_path / "one", 1, exact=True, main=MAIN)
    (first, second), printed = run(data, tmp_path / "two", 2, exact=True, main=MAIN)
    for part in ("student", "distiller"):
        assert one[part]
        for name, value in one[part].items():
            assert torch.equal(first[part][name], second[part][name]), name
            torch.testing.assert_close(first[part][name], value, rtol=1e-3, atol=1e-4)
    assert [set(row) for row in one["history"]] == [set(row) for row in first["history"]]
    for alone, together in zip(one["history"], first["history"], strict=True):
        assert {"train/pixel_kl", "train/fitnet", "metrics/AP", "metrics/mIoU", "metrics/Dice"} <= set(alone)
        keys = [key for key in alone if key != "time"]
        assert [together[key] for key in keys] == pytest.approx([alone[key] for key in keys], rel=5e-3, abs=5e-4)
    assert all(row["metrics/mIoU"] > 0.1 for row in one["history"])
    assert printed.count("run: epoch") == 2  # one process speaks
    assert (tmp_path / "two" / "run" / "lightning" / "best.safetensors").is_file()


def test_processes_agree_on_what_is_kept_and_how_good_it_is(discs: Path, tmp_path: Path) -> None:
    """Each has statistics of its own pictures; those of the first are judged, and kept."""
    (first, second), _ = run(discs, tmp_path / "two", 2, exact=False, main=MAIN)
    for part in ("student", "distiller"):
        for name, value in first[part].items():
            assert torch.equal(second[part][name], value), name
    assert [{**row, "time": 0} for row in first["history"]] == [{**row, "time": 0} for row in second["history"]]
    assert first["weights"] == second["weights"]


def test_processes_have_the_same_average_as_their_teacher(discs: Path, tmp_path: Path) -> None:
    (first, second), _ = run(discs, tmp_path / "two", 2, exact=False, main=MAIN, ema=True)
    for part in ("student", "teacher"):
        assert all(torch.equal(value, second[part][name]) for name, value in first[part].items()), part
    assert any(not torch.equal(value, first["student"][name]) for name, value in first["teacher"].items())
    assert all(row["train/pixel_kl"] >= 0 for row in first["history"])

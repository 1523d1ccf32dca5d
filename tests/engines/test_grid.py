"""Comparisons over the values of keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detkd.engines.compare import plan_comparison, summarise
from detkd.engines.grid import Axis, grid_recipes, parse_grid
from detkd.errors import ConfigError
from detkd.report.grid import grid_plot

ROOT = Path(__file__).resolve().parents[2]
TEMPERATURE, WEIGHT = (f"distill.terms.soft_kl.{key}" for key in ("temperature", "weight"))


def plan(folder: Path, *grid: str, **arguments: Any) -> Any:
    return plan_comparison(
        ROOT / "configs/classification/cnn_from_resnet18.yaml",
        ROOT / "configs/recipes/classification.yaml",
        overrides=["data=d", "distill.teacher.weights=t.safetensors", f"output={folder}"],
        grid=parse_grid(grid),
        **{"seeds": [0, 1], **arguments},
    )


def test_every_combination_is_a_recipe_beside_the_baseline(tmp_path: Path) -> None:
    planned = plan(tmp_path, f"{TEMPERATURE}=1,4", f"{WEIGHT}=0.5, 2", only=["dkd"])
    names = ["temperature-1_weight-0.5", "temperature-1_weight-2", "temperature-4_weight-0.5", "temperature-4_weight-2"]
    assert list(planned.runs) == ["alone", "dkd", *names]
    found = [planned.runs[name][1].distill.terms["soft_kl"] for name in names]
    assert [(term["temperature"], term["weight"]) for term in found] == [(1, 0.5), (1, 2), (4, 0.5), (4, 2)]
    assert planned.runs[names[0]][1].train.seed == 1
    assert list(plan(tmp_path, f"{TEMPERATURE}=1").runs) == ["alone", "temperature-1"]


def test_names_are_those_of_folders() -> None:
    assert list(grid_recipes([Axis("student.model", ("a/b c",))])) == ["model-a-b-c"]


def test_cells_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two are called weights-runs-a-b.pt"):
        plan(tmp_path, "distill.teacher.weights=runs/a/b.pt,runs/a-b.pt")


@pytest.mark.parametrize("grid", [["key"], ["=1"], ["a.b=1,,2"], ["a=1,1"], ["a=1", "a=2"], ["a=1", "b=1", "c=1"]])
def test_what_is_no_grid_is_refused(grid: list[str]) -> None:
    with pytest.raises(ConfigError, match="--grid: expected"):
        parse_grid(grid)


def test_a_value_that_the_configuration_refuses_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        plan(tmp_path, f"{TEMPERATURE}=warm")


@pytest.mark.parametrize(
    ("seeds", "grid"), [([0, 1], [f"{TEMPERATURE}=1,2,4"]), ([0], [f"{TEMPERATURE}=1,2", f"{WEIGHT}=1,2,3"])]
)
def test_what_was_gained_is_drawn(tmp_path: Path, seeds: list[int], grid: list[str]) -> None:
    planned = plan(tmp_path, *grid, seeds=seeds)
    for number, run in enumerate(run for runs in planned.runs.values() for run in runs):
        metrics = dict.fromkeys(("accuracy", "NLL", "ECE"), 0.5 + 0.01 * number)
        content = {
            "student": {"metrics": {"test": metrics}},
            "teachers": [],
            **{"train_seconds": 1.0, "epochs": 1, "peak_memory_mib": 1.0, "history": [{"epoch": 1}]},
        }
        (run.output / run.name).mkdir(parents=True)
        (run.output / run.name / "results.json").write_text(json.dumps(content))
    report = summarise(planned)
    assert [axis["key"] for axis in report["grid"]] == [text.split("=")[0] for text in grid]
    grid_plot(report, tmp_path / "grid.png")
    colours = Image.open(tmp_path / "grid.png").convert("RGB").getcolors(2**24)
    assert colours is not None
    assert len(colours) > 20

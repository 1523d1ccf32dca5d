"""The command line that compares: its default recipes for each kind of student, and a comparison from beginning to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml

from detkd.commands.compare import recipes_for
from detkd.config import load_config
from detkd.engines.compare import plan_comparison
from detkd.errors import ConfigError
from detkd.model_config import ModelConfig
from tests.engines.conftest import TINY_RCNN
from tests.tools.calling import call

ROOT = Path(__file__).resolve().parents[2]


def test_recipes_follow_the_student() -> None:
    found = {
        config.parent.name: recipes_for(load_config(config, ["data=d.yaml", "distill=null"]).student).name
        for config in ROOT.glob("configs/*/*.yaml")
        if config.parent.name not in {"recipes", "demo"}
    }
    assert found == {name: f"{name}.yaml" for name in ("yolo", "faster_rcnn", "unet", "classification", "text")}
    assert recipes_for(ModelConfig(weights=Path("student.pt"))).name == "yolo.yaml"
    for spec in ({"model": "retinanet_resnet50_fpn"}, {"weights": "student.safetensors"}):
        with pytest.raises(ConfigError, match="--recipes: expected a file for a student of"):
            recipes_for(ModelConfig.model_validate(spec))


def test_the_recipes_of_faster_rcnns_are_sound() -> None:
    planned = plan_comparison(
        ROOT / "configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml",
        ROOT / "configs/recipes/faster_rcnn.yaml",
        seeds=[0],
        overrides=["data=d.yaml", "distill.teacher.weights=t.safetensors"],
    )
    assert planned.baseline == "alone"
    terms = {name: runs[0].distill and set(runs[0].distill.terms) for name, runs in planned.runs.items()}
    assert terms == {
        "alone": None,
        "pkd": {"pkd"},
        "regions": {"dkd", "bounded_box"},
        "pkd-regions": {"pkd", "dkd", "bounded_box"},
        "labels": {"pkd", "region_label"},
        "average": {"pkd"},
    }
    # What the configuration itself trains with is one of them.
    assert (
        planned.runs["pkd-regions"][0].distill
        == load_config(
            ROOT / "configs/faster_rcnn/mobilenet_small_from_yolov5n.yaml",
            ["data=d.yaml", "distill.teacher.weights=t.safetensors"],
        ).distill
    )


@pytest.mark.slow
def test_a_faster_rcnn_is_compared_by_two_recipes_on_two_seeds(
    data: Path, rcnn_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {
        "name": "table",
        "output": str(tmp_path / "runs"),
        "data": str(data),
        "student": TINY_RCNN,
        "distill": {"teacher": {"weights": str(rcnn_teacher)}},
        "train": {"epochs": 1, "imgsz": 64, "batch": 4},
        "evaluate": ["val"],
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    given = ["--config", tmp_path / "run.yaml", "--seeds", "0,1", "--only", "labels", "--jobs", "2"]
    assert call("compare", *given) == 0
    folder = tmp_path / "runs" / "table"
    assert capsys.readouterr().out.splitlines()[-1] == str(folder)
    report = json.loads((folder / "comparison.json").read_text())
    assert list(report["recipes"]) == ["alone", "labels"]
    assert report["seeds"] == [0, 1]
    assert {"pkd", "region_label", "loss_objectness"} <= set(report["recipes"]["labels"]["final_terms"])
    assert report["teacher"]["AP"] is not None
    assert len(report["recipes"]["labels"]["difference"]["AP"]) > 1
    students = {
        name: torch.load(folder / name / "lightning" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("alone-0", "alone-1", "labels-0", "labels-1")
    }
    heads = [state["roi_heads.box_predictor.cls_score.weight"] for state in students.values()]
    assert not any(torch.equal(one, other) for index, one in enumerate(heads) for other in heads[:index])


def test_what_lightning_refuses_is_refused_before_the_first_run(
    data: Path, rcnn_teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = {"name": "table", "output": str(tmp_path / "runs"), "data": str(data), "student": TINY_RCNN, "evaluate": ["val"]}
    tree |= {"distill": {"teacher": {"weights": str(rcnn_teacher)}}, "trainer": {"lr0": 0.1}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(tree))
    assert call("compare", "--config", tmp_path / "run.yaml") == 2
    (error,) = capsys.readouterr().err.splitlines()
    assert "trainer.lr0: unknown to Lightning's Trainer" in error
    assert not (tmp_path / "runs").exists()

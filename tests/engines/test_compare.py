"""Comparisons: planned as asked, run once, paired by seed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from detkd.config import dump_config
from detkd.engines import compare
from detkd.engines.kept import keep_weights
from detkd.engines.run import prepare_run
from detkd.errors import AdapterError, ConfigError, DataError, WeightsError
from tests.engines.conftest import TINY

RECIPES = {
    "alone": ["distill=null"],
    "pkd": ["distill.terms={pkd: {}}"],
    "native": ["distill=null", "trainer.distill_model={teacher}", "trainer.dis=1.0"],
}


def write_run(folder: Path, data: Path, teacher: object, recipes: object = None) -> Path:
    tree = {
        "name": "table",
        "output": str(folder / "runs"),
        "data": str(data),
        "student": TINY,
        "distill": {"teacher": {"weights": teacher}},
        "train": {"epochs": 1, "imgsz": 64, "batch": 4},
        "evaluate": ["val"],
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(tree))
    (folder / "recipes.yaml").write_text(yaml.safe_dump(RECIPES if recipes is None else recipes, sort_keys=False))
    return folder / "run.yaml"


def plan(folder: Path, **arguments: object) -> compare.Comparison:
    return compare.plan_comparison(folder / "run.yaml", folder / "recipes.yaml", **{"seeds": [0, 1], **arguments})


def finish(run: compare.DetectionConfig, ap: float, *, teacher: float | None = None) -> None:
    """Plant the results of a run as run_config leaves them."""

    def model(value: float) -> dict[str, object]:
        return {"metrics": {"val": {"AP": value, "AP50": value, "AP75": value}}}

    folder = run.output / run.name
    folder.mkdir(parents=True)
    content = {
        "student": model(ap),
        "teachers": [] if teacher is None else [model(teacher - 0.1), model(teacher)],  # the best one counts
        "train_seconds": 6.0,
        "epochs": 3,
        "peak_memory_mib": 100.0,
        "history": [{"epoch": 3, "train/box_loss": 1.5}],
    }
    (folder / "results.json").write_text(json.dumps(content))


def test_every_recipe_is_planned_with_every_seed(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "t.pt")
    planned = plan(tmp_path, overrides=["train.epochs=7"])
    assert [run.name for runs in planned.runs.values() for run in runs] == [
        "alone-0", "alone-1", "pkd-0", "pkd-1", "native-0", "native-1",
    ]  # fmt: skip
    assert {run.train.epochs for runs in planned.runs.values() for run in runs} == {7}
    assert planned.runs["alone"][1].train.seed == 1
    assert planned.runs["native"][0].trainer == {"distill_model": "t.pt", "dis": 1.0}
    assert list(plan(tmp_path, only=["native"]).runs) == ["alone", "native"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": []}, "at least one"),
        ({"seeds": [1, 1]}, "different seeds"),
        ({"only": ["none"]}, "expected names out of"),
        ({"split": "test"}, "one of the splits evaluated"),
        ({"overrides": ["distill.teacher.weights=null"]}, "native: expected distill.teacher.weights"),
        ({"overrides": ["train.epoch=1"]}, "train.epoch: unknown key"),
    ],
)
def test_faults_are_refused_before_anything_runs(
    tmp_path: Path, data: Path, arguments: dict[str, object], message: str
) -> None:
    write_run(tmp_path, data, "t.pt")
    with pytest.raises(ConfigError, match=message):
        plan(tmp_path, **arguments)
    assert not (tmp_path / "runs").exists()


def test_a_run_of_another_configuration_is_not_taken_for_this_one(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "t.pt")
    run = plan(tmp_path).runs["pkd"][0]
    (run.output / run.name).mkdir(parents=True)
    (run.output / run.name / "config.yaml").write_text(dump_config(run))
    plan(tmp_path)
    with pytest.raises(ConfigError, match="pkd-0: .* differs .*: train.epochs is 1 there and 2 here"):
        plan(tmp_path, overrides=["train.epochs=2"])


def test_a_run_of_an_earlier_version_has_the_defaults_of_the_keys_that_it_did_not_know(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "t.pt")
    run = plan(tmp_path).runs["pkd"][0]
    tree = yaml.safe_load(dump_config(run))
    del tree["student"]["smoothing"], tree["distill"]["balance"]
    (run.output / run.name).mkdir(parents=True)
    (run.output / run.name / "config.yaml").write_text(yaml.safe_dump(tree))
    plan(tmp_path)
    with pytest.raises(ConfigError, match="distill.balance is gradient_ratio there and none here"):
        plan(tmp_path, overrides=["distill.balance=none"])


def test_gains_are_paired_by_seed_and_measured_against_the_gap(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "t.pt")
    planned = plan(tmp_path, only=["pkd"])
    for run, ap in zip(planned.runs["alone"], (0.4, 0.5), strict=True):
        finish(run, ap)
    for run, ap in zip(planned.runs["pkd"], (0.45, 0.55), strict=True):
        finish(run, ap, teacher=0.65)
    report = compare.summarise(planned)
    assert report["recipes"]["pkd"]["difference"]["AP"]["mean"] == pytest.approx(0.05)
    assert report["recipes"]["pkd"]["difference"]["AP"]["low"] == pytest.approx(0.05)
    assert report["recipes"]["pkd"]["gap_closed"] == pytest.approx(0.25)
    assert report["recipes"]["pkd"]["seconds_per_epoch"] == 2.0
    assert report["recipes"]["alone"]["final_terms"] == {"box_loss": 1.5}
    table = compare.comparison_markdown(report)
    assert "| pkd | 0.450 0.550 | 0.500 | +0.050 (+0.050 … +0.050) |" in table
    assert "| 25% |" in table


def test_it_runs_what_is_missing_and_nothing_twice(
    tmp_path: Path, data: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(tmp_path, data, str(checkpoint))
    planned = plan(tmp_path, seeds=[3])
    folder = compare.run_comparison(planned, jobs=2)
    report = json.loads((folder / "comparison.json").read_text())
    assert list(report["recipes"]) == ["alone", "pkd", "native"]
    assert {"pkd", "box_loss"} <= set(report["recipes"]["pkd"]["final_terms"])
    assert "dis_loss" in report["recipes"]["native"]["final_terms"]
    assert report["recipes"]["alone"]["peak_memory_mib"] > 100
    page = (folder / "report.html").read_text()
    assert 'data-role="alone"' in page  # the pictures of its runs
    assert 'data-role="native"' in page
    taught = {name: (folder / f"{name}-3" / "weights.json").exists() for name in report["recipes"]}
    assert taught == {"alone": False, "pkd": True, "native": True}

    monkeypatch.setattr(compare, "_run_apart", lambda _: pytest.fail("a finished run was made again"))
    compare.run_comparison(plan(tmp_path, seeds=[3]))


def test_a_run_that_fails_is_named_with_its_log(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "unused.pt", {"alone": ["distill=null", "trainer.optimizer=Guesswork"]})
    with pytest.raises(compare.DetkdError, match=r"alone-0: the run ended with exit code 1; .*alone-0\.log says why"):
        compare.run_comparison(plan(tmp_path, seeds=[0]))
    assert "Guesswork" in (tmp_path / "runs" / "table" / "alone-0.log").read_text()


def test_models_and_terms_that_do_not_fit_are_refused_before_the_first_run(
    tmp_path: Path, data: Path, checkpoint: Path
) -> None:
    (tmp_path / "broken.pt").write_bytes(b"no checkpoint")
    write_run(tmp_path, data, str(tmp_path / "broken.pt"))
    with pytest.raises(WeightsError, match=r"pkd-0: Expected an ultralytics checkpoint, but .*broken\.pt is not one"):
        compare.run_comparison(plan(tmp_path, only=["pkd"]))
    write_run(tmp_path, data, str(checkpoint), {"alone": ["distill=null"], "misfit": ["distill.terms={dkd: {}}"]})
    with pytest.raises(AdapterError, match=r"misfit-0: Expected loss `dkd` .*`detection_label` \(from any\)"):
        compare.run_comparison(plan(tmp_path))
    assert not (tmp_path / "runs").exists()


def test_runs_of_other_pictures_are_no_pairs(tmp_path: Path, data: Path) -> None:
    write_run(tmp_path, data, "t.pt")
    planned = plan(tmp_path, only=["pkd"])
    for name, count in (("alone", 10), ("pkd", 20)):
        for run in planned.runs[name]:
            finish(run, 0.5)
            path = run.output / run.name / "results.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "data": {"images": {"train": count}}}))
    with pytest.raises(DataError, match="Expected runs on the same pictures, but those of pkd-0"):
        compare.summarise(planned)


def write_teacher(path: Path, value: float) -> None:
    torch.save({"weights": torch.full((3,), value)}, path)


def test_a_teacher_trained_anew_under_the_same_path_is_another_one(tmp_path: Path, data: Path) -> None:
    teacher = tmp_path / "t.pt"
    write_teacher(teacher, 1.0)
    write_run(tmp_path, data, str(teacher))
    planned = plan(tmp_path)
    for name, runs in planned.runs.items():
        for run in runs:
            finish(run, 0.5, teacher=0.6)
            keep_weights(run.output / run.name, run)
            kept = run.output / run.name / "weights.json"
            assert kept.exists() == (name != "alone")
    assert json.loads(kept.read_text()).keys() == {str(teacher)}
    compare.summarise(plan(tmp_path))

    write_teacher(teacher, 2.0)
    with pytest.raises(ConfigError) as refused:
        plan(tmp_path)
    assert str(refused.value) == (
        f"pkd-0, pkd-1, native-0, native-1: made with other weights than {teacher} has now. Put the "
        f"former ones back, or delete the folder of each in {planned.folder} to make it anew."
    )
    plan(tmp_path, overrides=[f"distill.teacher.weights={tmp_path / 'u.pt'}"], only=["alone"])
    (planned.folder / "pkd-0" / "results.json").unlink()  # a run that had not finished an epoch begins anew
    with pytest.raises(ConfigError, match="^pkd-1, native-0, native-1: made"):
        plan(tmp_path)
    for run in (run for name in ("pkd", "native") for run in planned.runs[name]):
        (run.output / run.name / "weights.json").unlink()  # as of an earlier version
    plan(tmp_path)
    teacher.unlink()  # finished runs need it no more
    plan(tmp_path)


def test_weights_that_students_begin_with_are_the_same_for_all(tmp_path: Path, data: Path) -> None:
    start = tmp_path / "s.pt"
    write_teacher(start, 1.0)
    write_run(tmp_path, data, "yolo11s.yaml")
    given: dict[str, Any] = {"overrides": [f"student.weights={start}"], "only": ["pkd"]}
    for run in (run for runs in plan(tmp_path, **given).runs.values() for run in runs):
        finish(run, 0.5, teacher=0.6)
        keep_weights(run.output / run.name, run)
    compare.summarise(plan(tmp_path, **given))
    write_teacher(start, 2.0)
    with pytest.raises(ConfigError, match=f"^alone-0, alone-1, pkd-0, pkd-1: made with other weights than {start} has now"):
        plan(tmp_path, **given)


def test_runs_of_other_weights_are_not_compared(tmp_path: Path, data: Path) -> None:
    teacher = tmp_path / "t.pt"
    write_run(tmp_path, data, str(teacher))
    planned = plan(tmp_path)
    for value, runs in enumerate(planned.runs.values()):
        write_teacher(teacher, value)
        for run in runs:
            finish(run, 0.5, teacher=0.6)
            keep_weights(run.output / run.name, run)
    with pytest.raises(
        DataError, match=rf"the same files, but the weights in {teacher} were others for native-0 than for pkd"
    ):
        compare.summarise(planned)
    for run in planned.runs["native"]:
        (run.output / run.name / "weights.json").unlink()
    compare.summarise(planned)
    (planned.folder / "pkd-1" / "weights.json").write_text("[]")
    with pytest.raises(DataError, match=r"pkd-1/weights\.json, but: it is no object of digests\. Delete the run"):
        compare.summarise(planned)


def test_a_run_that_was_cut_short_does_not_go_on_with_another_teacher(tmp_path: Path, data: Path) -> None:
    teacher = tmp_path / "t.pt"
    write_teacher(teacher, 1.0)
    write_run(tmp_path, data, str(teacher))
    run = plan(tmp_path).runs["native"][0]
    folder = run.output / run.name
    last = folder / compare.FAMILIES["yolo"].engine.LAST_CHECKPOINT
    last.parent.mkdir(parents=True)
    last.touch()
    (folder / "config.yaml").write_text(dump_config(run))
    keep_weights(folder, run)
    plan(tmp_path)
    write_teacher(teacher, 2.0)
    with pytest.raises(ConfigError, match="^native-0: made with other weights"):
        plan(tmp_path)
    with pytest.raises(
        ConfigError, match=rf"the weights that {folder} was started with, but {teacher} has other weights now"
    ):
        prepare_run(run, resume=True)


def test_an_average_of_the_student_is_no_gap_to_close(tmp_path: Path, data: Path) -> None:
    recipes = {"alone": ["distill=null"], "average": ["distill.teacher={ema: 0.99}", "distill.terms={pkd: {}}"]}
    write_run(tmp_path, data, "t.pt", recipes)
    planned = plan(tmp_path)
    for runs in planned.runs.values():
        for run in runs:
            finish(run, 0.5)
            path = run.output / run.name / "results.json"
            content = json.loads(path.read_text())
            path.write_text(json.dumps({**content, "teachers": [content["student"]] if run.distill else []}))
    report = compare.summarise(planned)
    assert report["teacher"] is None
    assert report["recipes"]["average"]["gap_closed"] is None


def test_names_and_paths_are_not_what_yaml_may_take_them_for(tmp_path: Path, data: Path) -> None:
    folder = tmp_path / "a #b"
    folder.mkdir()
    write_run(folder, data, "5")
    planned = plan(folder)
    assert planned.runs["native"][0].output == planned.folder == folder / "runs" / "table"
    assert planned.runs["native"][0].trainer["distill_model"] == "5"
    for name in (0.5, True):
        write_run(folder, data, "t.pt", {name: []})
        with pytest.raises(ConfigError, match="Put it in quotes"):
            plan(folder)

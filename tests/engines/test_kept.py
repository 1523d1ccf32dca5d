"""Which run is the one to compare a distilled run with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detkd.config import dump_config
from detkd.engines.kept import check_baseline, find_baseline
from detkd.errors import ConfigError, DataError
from tests.engines.classes import configure_classes
from tests.report.html.folders import write_results

TEACHER = {"teacher": {"weights": "teacher.safetensors"}, "terms": {"soft_kl": {}}}
TRAIN = {"epochs": 2, "imgsz": 32, "batch": 8}


def write(folder: Path, *, distill: dict[str, Any] | None = None, pictures: int = 20, **changes: Any) -> Path:
    """A finished run of a configuration, on so many training pictures."""
    results = {"data": {"path": "data", "images": {"train": pictures, "test": 6}}}
    write_results(folder, taught=distill is not None, **results)
    config = configure_classes(Path("data"), name=folder.name, output=str(folder.parent), distill=distill, **changes)
    (folder / "config.yaml").write_text(dump_config(config))
    return folder


def test_the_run_beside_it_that_differs_by_distillation_alone_is_found(tmp_path: Path) -> None:
    distilled = write(tmp_path / "distilled", distill=TEACHER)
    assert find_baseline(distilled) is None
    write(tmp_path / "also-distilled", distill={**TEACHER, "terms": {"dkd": {}}})
    alone = write(tmp_path / "alone", loggers=["tensorboard"])
    assert find_baseline(distilled) == alone
    assert find_baseline(alone) is None
    assert check_baseline(distilled, alone) == alone


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"train": {**TRAIN, "epochs": 3}}, "train.epochs is 3 there and 2 here"),
        ({"train": {**TRAIN, "seed": 1}}, "train.seed is 1 there and 0 here"),
        ({"optim": {"lr": 0.5}}, "optim.lr is 0.5 there and 0.01 here"),
        ({"data": "elsewhere"}, "data is elsewhere there and data here"),
    ],
)
def test_a_run_of_another_configuration_is_not_taken(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    distilled, other = write(tmp_path / "distilled", distill=TEACHER), write(tmp_path / "alone", **changes)
    assert find_baseline(distilled) is None
    with pytest.raises(ConfigError, match="distill=null alone, but in .*alone/config.yaml") as error:
        check_baseline(distilled, other)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_run_that_began_with_other_weights_is_not_taken(tmp_path: Path) -> None:
    start = {"model": "cnn", "weights": "start.safetensors"}
    distilled = write(tmp_path / "distilled", distill=TEACHER, student=start)
    other = write(tmp_path / "alone", student=start)
    for folder, digest in ((distilled, "a"), (other, "b")):
        (folder / "weights.json").write_text(json.dumps({"start.safetensors": digest}))
    assert find_baseline(distilled) is None
    with pytest.raises(ConfigError, match="the weights in start.safetensors were others when it began"):
        check_baseline(distilled, other)
    (other / "weights.json").write_text(json.dumps({"start.safetensors": "a"}))
    assert find_baseline(distilled) == other


def test_a_run_on_other_pictures_is_not_taken(tmp_path: Path) -> None:
    distilled, other = write(tmp_path / "distilled", distill=TEACHER), write(tmp_path / "alone", pictures=10)
    assert find_baseline(distilled) is None
    with pytest.raises(ConfigError, match="its pictures were {'train': 10, 'test': 6} and not {'train': 20"):
        check_baseline(distilled, other)


def test_runs_that_are_distilled_or_not_finished_are_no_baseline(tmp_path: Path) -> None:
    distilled, other = (write(tmp_path / name, distill=TEACHER) for name in ("distilled", "other"))
    with pytest.raises(ConfigError, match="distill.teacher.weights is teacher.safetensors there and None here"):
        check_baseline(distilled, other)
    alone = write(tmp_path / "alone")
    with pytest.raises(ConfigError, match="but .*alone is not distilled itself"):
        check_baseline(alone, distilled)
    (alone / "results.json").unlink()
    assert find_baseline(distilled) is None
    with pytest.raises(DataError, match="alone/results.json"):
        check_baseline(distilled, alone)


@pytest.mark.parametrize("name", ["results.json", "curves.json", "config.yaml"])
def test_a_broken_run_beside_it_does_not_spoil_the_report(tmp_path: Path, name: str) -> None:
    distilled = write(tmp_path / "distilled", distill=TEACHER)
    (write(tmp_path / "a-broken-one") / name).write_text("{")
    assert find_baseline(distilled) is None
    alone = write(tmp_path / "b-alone")
    assert find_baseline(distilled) == alone


def test_where_no_configuration_was_kept_none_is_found(tmp_path: Path) -> None:
    distilled, _ = write(tmp_path / "distilled", distill=TEACHER), write(tmp_path / "alone")
    (distilled / "config.yaml").unlink()
    assert find_baseline(distilled) is None

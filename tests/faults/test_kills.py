"""Killed at any moment, nothing is half, and what goes on from there ends as if nothing had happened."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from detkd.adapters.ultralytics import import_ultralytics
from detkd.commands.report import main
from detkd.engines.caching import cache_teachers
from detkd.engines.compare import plan_comparison, run_comparison
from detkd.engines.families import FAMILIES
from detkd.engines.run import run_config
from detkd.model_config import ModelConfig
from detkd.models.classifier_files import build_model, save_model
from tests.engines.classes import COLOURS, TINY, configure_classes, tensors_of, write_pictures
from tests.engines.conftest import TINY as TINY_YOLO
from tests.engines.conftest import configure
from tests.faults.killing import attempt
from tests.report.html.folders import write_comparison, write_run

if TYPE_CHECKING:
    from detkd.config import RunConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 6, "test": 3})


def go_on(config: RunConfig) -> None:
    """Start a run, or go on with it, as a user does who finds it cut short."""
    folder = config.output / config.name
    if not (folder / "results.json").exists():
        run_config(config, resume=(folder / FAMILIES[config.family].engine.LAST_CHECKPOINT).exists())


def results(config: RunConfig) -> dict[str, Any]:
    """What a run found, without what no two runs have alike."""
    content = json.loads((config.output / config.name / "results.json").read_text())
    history = [{key: value for key, value in row.items() if key != "time"} for row in content["history"]]
    return {"history": history, "metrics": content["student"]["metrics"], "epochs": content["epochs"]}


def assert_whole(folder: Path) -> None:
    """Every file that has its name can be read; what is half has another."""
    for path in folder.rglob("*"):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.suffix == ".json":
            json.loads(path.read_text())
        if path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text())
        if path.suffix == ".safetensors":
            assert tensors_of(path)
        if path.suffix == ".ckpt":
            assert torch.load(path, weights_only=True)
        if path.suffix == ".pt" and path.name.startswith("distiller"):
            assert torch.load(path, weights_only=True)
        if path.suffix == ".csv":
            assert len(path.read_text().splitlines()) > 1


def chosen(steps: int, count: int, seed: int) -> list[int]:
    """Moments of work of so many steps, the same in every run."""
    return sorted(random.Random(seed).sample(range(1, steps + 1), min(count, steps)))


def kill_training(config_of: Callable[[Path], RunConfig], tmp_path: Path, count: int, compare: Callable[..., None]) -> None:
    """Kill a run at some moments, each in a folder of its own, and go on."""
    whole = config_of(tmp_path / "whole")
    steps = attempt(partial(go_on, whole), whole.output)
    assert steps is not None
    for moment in chosen(steps, count, seed=0):
        config = config_of(tmp_path / str(moment))
        assert attempt(partial(go_on, config), config.output, moment) is None
        assert_whole(config.output)
        attempt(partial(go_on, config), config.output)
        compare(whole, config)
        remains = [path for path in config.output.rglob(".*") if path.is_file() and path.name != ".lock"]
        assert not remains, moment


def equal_runs(whole: RunConfig, config: RunConfig) -> None:
    """The killed run ended as the other."""
    assert results(config) == results(whole)
    one, other = (tensors_of(run.output / run.name / "student.safetensors") for run in (whole, config))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def sound_yolos(whole: RunConfig, config: RunConfig) -> None:
    """ultralytics resumes from weights of 16 bits: the numbers differ, all else does not."""
    found, wanted = results(config), results(whole)
    assert [row["epoch"] for row in found["history"]] == [row["epoch"] for row in wanted["history"]]
    assert found["metrics"].keys() == wanted["metrics"].keys()


@pytest.mark.parametrize("count", [2, pytest.param(12, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_a_killed_training_ends_as_an_unbroken_one(pictures: Path, tmp_path: Path, count: int) -> None:
    kill_training(lambda output: configure_classes(pictures, output=str(output)), tmp_path, count, equal_runs)


@pytest.mark.parametrize("count", [1, pytest.param(6, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_a_killed_yolo_goes_on_to_its_end(data: Path, tmp_path: Path, count: int) -> None:
    import_ultralytics()
    student = {**TINY_YOLO}
    kill_training(
        lambda output: configure(data, output=str(output), distill=None, student=student), tmp_path, count, sound_yolos
    )


@pytest.mark.parametrize("count", [2, pytest.param(12, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_a_killed_cache_is_made_to_its_end(pictures: Path, tmp_path: Path, count: int) -> None:
    teacher, _ = build_model(ModelConfig(**TINY), sorted(COLOURS), role="teacher", imgsz=32)
    save_model(teacher, tmp_path / "teacher.safetensors")

    def config_of(folder: Path) -> RunConfig:
        spec = {"weights": str(tmp_path / "teacher.safetensors"), "cache": str(folder / "cache"), "views": 2}
        return configure_classes(pictures, output=str(folder), distill={"teacher": spec})

    def content(folder: Path) -> dict[str, Any]:
        """The cache's tensors; safetensors' headers have their keys in any order, so checksums differ."""
        index = json.loads((folder / "cache" / "index.json").read_text())
        assert index["shards"].keys() == {path.name for path in (folder / "cache").glob("*.safetensors")}
        return {
            f"{name} {key}": tensor.tolist()
            for name in index["shards"]
            for key, tensor in tensors_of(folder / "cache" / name).items()
        }

    steps = attempt(partial(cache_teachers, config_of(tmp_path / "whole")), tmp_path / "whole")
    assert steps is not None
    for moment in chosen(steps, count, seed=1):
        folder = tmp_path / str(moment)
        assert attempt(partial(cache_teachers, config_of(folder)), folder, moment) is None
        attempt(partial(cache_teachers, config_of(folder)), folder)
        assert content(folder) == content(tmp_path / "whole")
        assert not [path for path in (folder / "cache").glob(".*") if path.suffix != ".lock"]


def report(folder: Path) -> None:
    main([str(folder)])


@pytest.mark.parametrize("kind", ["run", "comparison"])
@pytest.mark.parametrize("count", [5, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_a_killed_report_leaves_the_earlier_one_or_the_new_one_whole(tmp_path: Path, kind: str, count: int) -> None:
    def folder_of(name: str) -> Path:
        """Of a run or a comparison, always by the same name, with an earlier report."""
        folder = tmp_path / name / "found"
        (write_run if kind == "run" else write_comparison)(folder)
        (folder / "report.html").write_text("earlier")
        return folder

    whole = folder_of("whole")
    steps = attempt(partial(report, whole), whole)
    assert steps is not None
    wanted, files = (whole / "report.html").read_bytes(), sorted(path.relative_to(whole) for path in whole.rglob("*"))
    folder = folder_of("killed")
    for moment in chosen(steps, count, seed=3):
        (folder / "report.html").write_text("earlier")
        assert attempt(partial(report, folder), folder, moment) is None
        assert (folder / "report.html").read_bytes() in {b"earlier", wanted}, moment
        assert attempt(partial(report, folder), folder) is not None
        assert (folder / "report.html").read_bytes() == wanted, moment
        assert sorted(path.relative_to(folder) for path in folder.rglob("*")) == files, moment


def compare(config: Path, recipes: Path) -> None:
    run_comparison(plan_comparison(config, recipes, seeds=[0]))


@pytest.mark.parametrize("count", [pytest.param(4, marks=[pytest.mark.slow, pytest.mark.timeout(3000)])])
def test_a_killed_comparison_is_made_to_its_end(pictures: Path, tmp_path: Path, count: int) -> None:
    (tmp_path / "recipes.yaml").write_text(yaml.safe_dump({"alone": [], "faster": ["optim.lr=0.02"]}))

    def work(folder: Path) -> Callable[[], None]:
        folder.mkdir(exist_ok=True)
        tree = configure_classes(pictures, output=str(folder)).model_dump(mode="json")
        (folder / "run.yaml").write_text(yaml.safe_dump(tree))
        return partial(compare, folder / "run.yaml", tmp_path / "recipes.yaml")

    def found(folder: Path) -> dict[str, Any]:
        content = json.loads((folder / "run" / "comparison.json").read_text())
        return {name: recipe["accuracy"] for name, recipe in content["recipes"].items()}

    steps = attempt(work(tmp_path / "whole"), tmp_path / "whole")
    assert steps is not None
    for moment in chosen(steps, count, seed=2):
        folder = tmp_path / str(moment)
        attempt(work(folder), folder, moment)
        attempt(work(folder), folder)
        assert found(folder) == found(tmp_path / "whole")

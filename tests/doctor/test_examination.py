"""Whole examinations, of runs that are planned and of finished ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from detkd.doctor import cost, examination
from detkd.doctor.examination import alone, examine, load_run
from detkd.engines.caching import cache_teachers
from detkd.engines.run import run_config
from detkd.errors import ConfigError, DataError
from detkd.teachers.live import LiveTeacher
from tests.doctor.conftest import by_code
from tests.engines.classes import configure_classes, write_pictures
from tests.engines.conftest import configure, configure_rcnn
from tests.engines.segmented import configure_unet

if TYPE_CHECKING:
    from detkd.config import RunConfig

pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")


def files(folder: Path) -> dict[str, float]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_an_untrained_teacher_is_named_and_nothing_is_written(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    distill = {"teacher": {"weights": str(checkpoint)}, "terms": {"bckd": {}}}
    config = configure(data, distill=distill, output=str(tmp_path / "runs"))
    found = by_code(examine(config, seconds=5))
    assert found["teacher.no_better"].severity == "error"
    assert found["steps.few"].severity == "warning"
    assert found["hooks"].severity == "ok"
    assert found["memory"].severity == "ok"
    assert not (tmp_path / "runs").exists()


def test_classes_that_do_not_map_are_named_with_the_way_out(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    other = tmp_path / "data.yaml"
    other.write_text(data.read_text().replace("path: .", f"path: {data.parent}").replace("disc", "ring"))
    distill = {"teacher": {"weights": str(checkpoint)}, "terms": {"bckd": {}}}
    found = by_code(examine(configure(other, distill=distill), seconds=5))
    assert found["fit.refused"].severity == "error"
    assert "['disc', 'square']" in found["fit.refused"].detail
    assert "classes" in found["fit.refused"].fix


def test_a_cache_of_another_teacher_is_named_and_the_rest_is_looked_at(
    discs: Path, unet_teacher: Path, tmp_path: Path
) -> None:
    cached = {"weights": str(unet_teacher), "cache": str(tmp_path / "cache"), "views": 1}
    config = configure_unet(discs, distill={"teacher": cached, "terms": {"pixel_kl": {}}})
    cache_teachers(config)
    found = by_code(examine(config, seconds=5))
    assert found["cache"].severity == "ok"
    assert found["hooks"].severity == "ok"

    changed = tmp_path / "other.safetensors"
    save_file(
        {name: value + 0.1 if value.is_floating_point() else value for name, value in load_file(unet_teacher).items()},
        changed,
        metadata=_metadata(unet_teacher),
    )
    other = configure_unet(discs, distill={"teacher": {**cached, "weights": str(changed)}, "terms": {"pixel_kl": {}}})
    found = by_code(examine(other, seconds=5))
    assert found["cache.refused"].severity == "error"
    assert "weights" in found["cache.refused"].detail
    assert "cache-teacher" in found["cache.refused"].fix
    assert "hooks" in found


def test_a_cache_whose_values_are_not_the_teachers_is_named(discs: Path, unet_teacher: Path, tmp_path: Path) -> None:
    """As one has that was made by other code: its fingerprint is right, and so are its sums."""
    cached = {"weights": str(unet_teacher), "cache": str(tmp_path / "cache"), "views": 1}
    config = configure_unet(discs, distill={"teacher": cached, "terms": {"pixel_kl": {}}})
    with pytest.MonkeyPatch.context() as patch:
        run = torch.nn.functional.interpolate  # anything that a U-Net calls on its way up
        patch.setattr(torch.nn.functional, "interpolate", lambda *args, **more: 2 * run(*args, **more))
        cache_teachers(config)
    found = by_code(examine(config, seconds=5))["cache.refused"]
    assert "differs by" in found.detail


@pytest.mark.parametrize("family", ["unet", "yolo"])
def test_memory_and_time_of_a_cached_teacher_are_without_the_teacher(
    family: str,
    discs: Path,
    unet_teacher: Path,
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def configured(**cached: Any) -> RunConfig:
        if family == "unet":
            return configure_unet(
                discs, distill={"teacher": {"weights": str(unet_teacher), **cached}, "terms": {"pixel_kl": {}}}
            )
        train = {"epochs": 2, "imgsz": 64, "batch": 2}
        distill = {"teacher": {"weights": str(checkpoint), **cached}, "terms": {"bckd": {}}}
        return configure(data, train=train, distill=distill)

    runs, measured, watched = [], [], []

    def running(self: LiveTeacher, *arguments: Any) -> Any:
        runs.append(self)
        return run(self, *arguments)

    def measuring(step: Any, device: str) -> int:
        before = len(runs)
        found = peak_memory(step, device)
        measured.append((len(runs) - before, found))
        return found

    def watching(*arguments: Any, **more: Any) -> Any:
        before = len(runs)
        found = observe(*arguments, **more)
        watched.append((len(runs) - before, found.failure, len(found.calls)))
        return found

    run, peak_memory, observe = LiveTeacher.run, examination.peak_memory, examination.observe
    monkeypatch.setattr(LiveTeacher, "run", running)
    monkeypatch.setattr(examination, "peak_memory", measuring)
    monkeypatch.setattr(examination, "observe", watching)
    cached = configured(cache=str(tmp_path / "cache"), views=1)
    cache_teachers(cached)
    found = by_code(examine(cached, seconds=5))
    assert {"memory", "time", "cache"} <= set(found)
    assert [(ran, failure) for ran, failure, _ in watched] == [(0, None)] * 2  # for the memory, and for all else
    assert all(batches for _, _, batches in watched)
    assert measured[0][0] == 0

    examine(configured(), seconds=5)
    assert watched[2][0] > 0
    assert measured[1][0] > 0
    assert measured[0][1] < measured[1][1]

    # Of a cache that is refused the memory is that of the teacher which runs instead.
    (tmp_path / "cache" / "index.json").unlink()
    assert "cache.refused" in by_code(examine(cached, seconds=5))
    assert measured[2][0] > 0
    assert watched[-1][:2] == (watched[-1][2], None)


def test_more_memory_than_there_is_stops_before_the_large_step(
    data: Path, rcnn_teacher: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is measured; what the machine has is the only thing that is made up."""
    distill = {"teacher": {"weights": str(rcnn_teacher)}, "terms": {"pkd": {}}}
    monkeypatch.setattr("detkd.doctor.examination.available_memory", lambda device: 2**20)
    found = by_code(examine(configure_rcnn(data, distill=distill), seconds=5))
    assert found["memory.short"].severity == "error"
    assert "train.batch" in found["memory.short"].fix
    assert "hooks" not in found


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of pictures alone, and one beside it that learnt from it."""
    folder = tmp_path_factory.mktemp("runs")
    root = write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 8, "val": 4, "test": 4})
    run_config(configure_classes(root, output=folder, name="alone"))
    distill = {"teacher": {"weights": str(folder / "alone" / "student.safetensors")}, "terms": {"soft_kl": {}, "at": {}}}
    run_config(configure_classes(root, output=folder, name="taught", distill=distill))
    return folder


def test_a_finished_run_is_judged_by_its_record_and_its_student(finished: Path) -> None:
    before = files(finished)
    findings = examine(load_run(finished / "taught", []), seconds=5)
    assert files(finished) == before
    found = by_code(findings)
    assert {"run.no_gap", "run.no_gain"} & set(found)  # the teacher is the student alone itself
    assert "the student alone" in found["run.no_gap"].detail
    assert found["hooks"].severity == "ok"
    assert any("taught/student.safetensors" in finding.detail for finding in findings)
    assert not [code for code in found if code.startswith("teacher")]


def test_a_finished_run_is_found_where_it_has_been_moved(finished: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(finished / "taught", tmp_path / "elsewhere"))
    config = load_run(moved, ["train.seed=3"])
    assert (config.output / config.name, config.train.seed) == (moved, 3)
    assert "run.reached" in by_code(examine(config, seconds=5))


def test_a_record_is_judged_where_the_data_are_gone(finished: Path, tmp_path: Path) -> None:
    found = by_code(examine(load_run(finished / "taught", [f"data={tmp_path / 'gone'}"]), seconds=5))
    assert found["run.moved"].severity == "note"
    assert "gone" in found["run.moved"].detail
    assert "run.no_gap" in found


def test_faults_of_configuration_and_data_are_raised(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is none at"):
        load_run(tmp_path, [])
    with pytest.raises(DataError):
        examine(configure_classes(tmp_path / "none"))
    broken = Path(shutil.copytree(finished / "taught", tmp_path / "broken"))
    (broken / "results.json").write_text(json.dumps({"history": []}))
    with pytest.raises(DataError, match="results.json"):
        examine(load_run(broken, []))


def test_several_devices_are_examined_as_one() -> None:
    def configured(**changes: Any) -> RunConfig:
        return configure_rcnn(Path("unused"), **changes)

    one = alone(
        configured(
            train={"epochs": 2, "imgsz": 64, "batch": 8, "device": "0,1"}, trainer={"strategy": "ddp", "precision": "32"}
        )
    )
    assert (one.train.device, one.train.batch, one.trainer) == ("0", 4, {"precision": "32"})


def test_gathered_batches_count_as_one_step(data: Path) -> None:
    from detkd.engines.families import FAMILIES

    gathered = configure(data, distill=None, trainer={"nbs": 64})
    assert FAMILIES["yolo"].engine.batches_per_step(gathered) == 16
    assert FAMILIES["yolo"].engine.batches_per_step(configure(data, distill=None)) == 1
    lightning = configure_rcnn(data, trainer={"accumulate_grad_batches": 4})
    assert FAMILIES["torchvision"].engine.batches_per_step(lightning) == 4
    assert cost.count_steps(205, 16, 30, gathered=4) == 97


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        metadata: dict[str, str] = file.metadata()
    return metadata

"""No room on the disk, no memory, and teachers that say nothing: a clear line, and nothing is lost."""

from __future__ import annotations

import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.adapters.ultralytics import import_ultralytics, load_yolo
from detkd.cli import run
from detkd.engines.run import run_config
from detkd.errors import ConfigError, DetkdError, StorageError
from detkd.files import replacing
from detkd.model_config import ModelConfig
from detkd.models.classifier_files import build_model, save_model
from detkd.processes import alone_in
from tests.engines.classes import COLOURS, TINY, configure_classes, write_pictures
from tests.engines.conftest import configure
from tests.faults.killing import FORK, attempt
from tests.faults.test_kills import assert_whole, equal_runs, go_on, sound_yolos

if TYPE_CHECKING:
    from detkd.config import RunConfig

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = 20_000  # bytes: less than any checkpoint


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 6, "test": 3})


def without_room(work: Callable[[], object], told: Path) -> None:
    """Do some work where no file can grow beyond SMALL bytes, and write down how it fails."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (SMALL, SMALL))
    try:
        work()
    except DetkdError as error:
        told.write_text(f"{type(error).__name__}: {error}")


@pytest.mark.parametrize("kind", ["classifier", "yolo"])
def test_a_full_disk_is_told_in_one_line_and_costs_no_epoch(kind: str, pictures: Path, data: Path, tmp_path: Path) -> None:
    import_ultralytics()

    def config_of(name: str) -> RunConfig:
        if kind == "yolo":
            return configure(data, distill=None, output=str(tmp_path / name))
        return configure_classes(pictures, output=str(tmp_path / name))

    whole, full = config_of("whole"), config_of("full")
    steps = attempt(partial(go_on, whole), whole.output)
    assert steps is not None
    assert attempt(partial(go_on, full), full.output, steps // 2) is None
    attempt(partial(without_room, partial(go_on, full), tmp_path / "told"), full.output)
    said = (tmp_path / "told").read_text()
    assert said.startswith("StorageError: Expected room for ")
    assert str(full.output) in said
    assert "\n" not in said
    assert_whole(full.output)
    attempt(partial(go_on, full), full.output)
    (sound_yolos if kind == "yolo" else equal_runs)(whole, full)


@pytest.mark.parametrize("write", ["text", "torch", "safetensors"])
def test_every_writer_says_that_there_is_no_room(tmp_path: Path, write: str) -> None:
    def work() -> None:
        from safetensors.torch import save_file

        tensors = {"a": torch.zeros(SMALL)}
        with replacing(tmp_path / "file.pt") as temporary:
            if write == "text":
                temporary.write_text("x" * 2 * SMALL)
            elif write == "torch":
                torch.save(tensors, temporary)
            else:
                save_file(tensors, temporary)

    (tmp_path / "file.pt").write_text("old")
    process = FORK.Process(target=without_room, args=(work, tmp_path / "told"))
    process.start()
    process.join()
    assert (tmp_path / "told").read_text().startswith(f"{StorageError.__name__}: Expected room for {tmp_path / 'file.pt'}")
    assert (tmp_path / "file.pt").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.pt", "told"]


def test_a_folder_that_takes_nothing_is_told_before_any_epoch(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="output: expected a folder that can be written"):
        run_config(configure_classes(pictures, output="/proc/nothing"))


def test_two_runs_do_not_share_a_folder(pictures: Path, tmp_path: Path) -> None:
    config = configure_classes(pictures, output=str(tmp_path))
    ready, done = FORK.Event(), FORK.Event()

    def hold() -> None:
        with alone_in(tmp_path / "run"):
            ready.set()
            done.wait(60)

    process = FORK.Process(target=hold)
    process.start()
    assert ready.wait(60)
    with pytest.raises(ConfigError, match="name: expected a run that no other process is at work on"):
        run_config(config)
    done.set()
    process.join()
    assert (run_config(config) / "results.json").exists()


@pytest.mark.parametrize(
    "work", [lambda: torch.empty(2**50), lambda: bytearray(2**60), lambda: [0] * 2**60], ids=["torch", "bytes", "list"]
)
def test_exhausted_memory_is_told_in_one_line(work: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(work)
    assert end.value.code == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: Expected enough memory, but there is none left")
    assert "train.batch" in errors[0]


def test_any_other_fault_of_torch_keeps_its_traceback() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        run(lambda: torch.zeros(2, 3) @ torch.zeros(2, 3))


def test_a_teacher_of_nan_is_told_and_the_student_not_kept(pictures: Path, tmp_path: Path) -> None:
    teacher, _ = build_model(ModelConfig(**TINY), sorted(COLOURS), role="teacher", imgsz=32)
    with torch.no_grad():
        next(iter(teacher.parameters())).fill_(torch.nan)
    save_model(teacher, tmp_path / "teacher.safetensors")
    config = configure_classes(
        pictures, output=str(tmp_path), distill={"teacher": {"weights": str(tmp_path / "teacher.safetensors")}}
    )
    with pytest.raises(DetkdError, match="teacher") as error:
        run_config(config)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_yolo_of_nan_is_told_where_a_yolo_learns_from_it(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    content = load_yolo(checkpoint).ckpt
    with torch.no_grad():
        next(iter(content["model"].parameters())).fill_(torch.nan)
    torch.save(content, tmp_path / "teacher.pt")
    config = configure(data, output=str(tmp_path), distill={"teacher": {"weights": str(tmp_path / "teacher.pt")}})
    with pytest.raises(DetkdError, match="teacher") as error:
        run_config(config)
    assert "\n" not in str(error.value)

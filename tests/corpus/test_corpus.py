"""Nothing that is wrong ends in a traceback: one line a fault, exit code 2, and nothing written."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from detkd.adapters.ultralytics import import_ultralytics
from detkd.cli import run
from tests.corpus import checkpoints, commands, configs, datasets, reports
from tests.corpus.case import Case
from tests.corpus.datasets import boxed
from tests.engines.classes import write_pictures, write_sentences
from tests.engines.conftest import FEW
from tests.engines.segmented import write_discs, write_shapes

CASES = [*configs.CASES, *datasets.CASES, *checkpoints.CASES, *commands.CASES, *reports.CASES]
STUDENTS = {
    "yolo": {"model": "yolov5n.yaml", "width": 0.0625},
    "coco": {"model": "fasterrcnn_mobilenet_v3_small_fpn", "width": 0.125, "proposals": FEW},
    "voc": {"model": "fasterrcnn_mobilenet_v3_small_fpn", "width": 0.125, "proposals": FEW},
    "instances": {"model": "unet", "width": 0.25},
    "semantic": {"model": "unet", "width": 0.25},
    "pictures": {"model": "cnn", "width": 0.25},
    "sentences": {"model": "transformer", "width": 0.25, "depth": 0.5},
}
LONGEST = 2000  # characters of a message


def write_voc(root: Path) -> None:
    """Two pictures with an XML each, and the lists of the splits."""
    for folder in ("JPEGImages", "Annotations"):
        (root / folder).mkdir(parents=True)
    for index in range(2):
        Image.fromarray(np.full((64, 64, 3), 90 * index, np.uint8)).save(root / "JPEGImages" / f"{index}.jpg")
        (root / "Annotations" / f"{index}.xml").write_text(boxed("5 5 40 40"))
    for split in ("train", "val"):
        (root / f"{split}.txt").write_text("0\n1\n")
    (root / "data.yaml").write_text(
        yaml.safe_dump({"format": "voc", "train": "train.txt", "val": "val.txt", "names": ["disc"]})
    )


@pytest.fixture(scope="session")
def sound(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of each kind, and a configuration of a run on it."""
    import_ultralytics()  # its logger keeps the standard output of now, not that of a test
    root = tmp_path_factory.mktemp("sound")
    shutil.copytree(data.parent, root / "yolo" / "data")
    write_voc(root / "voc" / "data")
    for kind, write in (("coco", write_shapes), ("instances", write_discs), ("semantic", write_discs)):
        (root / kind / "data").mkdir(parents=True)
        write(root / kind / "data")
    for mask in (root / "semantic/data/masks").rglob("*.png"):
        Image.fromarray((np.asarray(Image.open(mask)) > 0).astype(np.uint8)).save(mask)
    tree = yaml.safe_load((root / "semantic/data/data.yaml").read_text())
    (root / "semantic/data/data.yaml").write_text(yaml.safe_dump({**tree, "format": "semantic"}))
    tree = yaml.safe_load((root / "coco/data/data.yaml").read_text())
    places = {split: f"{split}.json" for split in ("train", "val")}
    (root / "coco/data/data.yaml").write_text(yaml.safe_dump({**tree, "annotations": places}))
    write_pictures(root / "pictures" / "data", {"train": 4, "test": 2})
    (root / "sentences" / "data").mkdir(parents=True)
    write_sentences(root / "sentences" / "data", {"train": 20, "dev": 4, "test": 4})
    return root


def place(sound: Path, case: Case, here: Path) -> None:
    """Copy what a case is on, and break it."""
    shutil.copytree(sound / case.on, here, dirs_exist_ok=True)
    classified = case.on in {"pictures", "sentences"}
    tree = {
        "name": "run",
        "output": str(here / "runs"),
        "data": str(here / "data" if classified else here / "data" / "data.yaml"),
        "student": STUDENTS[case.on],
        "distill": None,
        "train": {"epochs": 1, "imgsz": 32 if classified else 64, "batch": 4},
        "evaluate": ["test" if classified else "val"],
    }
    (here / "run.yaml").write_text(yaml.safe_dump(tree))
    case.change(here)


def call(command: str, *arguments: str) -> int:
    """Run a command in this process; its exit code. What is no error of detkd's escapes."""
    with pytest.raises(SystemExit) as end:
        run(lambda: import_module(f"detkd.commands.{command.replace('-', '_')}").main(list(arguments)))
    return int(end.value.code or 0)


def listing(here: Path) -> list[str]:
    """All that is in a folder."""
    return sorted(str(path.relative_to(here)) for path in here.rglob("*"))


def test_there_are_many_cases_and_each_is_another() -> None:
    assert len(CASES) >= 150
    assert len({case.what for case in CASES}) == len(CASES)


@pytest.mark.parametrize("kind", STUDENTS)
def test_what_the_cases_break_is_sound_before(sound: Path, kind: str, tmp_path: Path) -> None:
    case = Case("sound", kind, "", arguments=("--dry-run",))
    place(sound, case, tmp_path)
    before = listing(tmp_path)
    assert call(*case.line(tmp_path)) == 0
    assert listing(tmp_path) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
def test_a_fault_is_named_and_nothing_is_written(
    sound: Path, case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place(sound, case, tmp_path)
    before = listing(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert call(*case.line(tmp_path)) == 2
    said = capsys.readouterr().err
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert errors, said
    assert any(case.says.replace("HERE", str(tmp_path)) in line for line in errors), errors
    assert all(len(line) < LONGEST for line in errors)
    assert "Traceback" not in said
    assert listing(tmp_path) == before
    assert torch.get_default_dtype() == torch.float32

"""Every command of the README and the docs is one that the tools take: options, keys, recipes, targets, extras."""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from detkd.commands import COMMANDS, make_synthetic
from detkd.errors import ConfigError
from tests.docs.commands import ELSEWHERE, check, parse, split
from tests.docs.pages import PAGES, ROOT, Block, blocks, name

if TYPE_CHECKING:
    from pathlib import Path

# What a reader has whose file a page describes in words.
FILES = {
    "BASE.yaml": (ROOT / "configs/unet/unet_from_yolo.yaml").read_text(),
    "RECIPES.yaml": "alone: [distill=null]\nlabels: []\ndrawn-features: []\n",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ROOT)
    for path, text in FILES.items():
        (tmp_path / path).write_text(text)
    return tmp_path


@pytest.mark.parametrize("block", blocks("bash"), ids=name)
def test_every_command_is_understood(block: Block, files: Path) -> None:
    commands = list(split(block.text))
    assert commands
    for words in commands:
        check(words, files)


def test_every_command_that_is_not_ours_is_used() -> None:
    used = {words[0] for block in blocks("bash") for words in split(block.text)}
    assert set(ELSEWHERE) <= used


@pytest.mark.parametrize(
    "command",
    [
        "python tools/nothing.py",
        "python tools/bench_ops.py --rounds 3",
        "detkd nothing",
        "detkd evaluate --wieghts W",
        "detkd train-det --config configs/yolo/yolov5n.yaml data=D train.epoch=1",
        "detkd train-seg --config configs/yolo/yolov5n.yaml data=D",
        "detkd compare --config configs/yolo/yolov5n-femto_from_yolov5n.yaml data=D --only nobody",
        "torchrun --processes 2 -m detkd train-det --config configs/yolo/yolov5n.yaml data=D",
        "detkd train-det --config configs/yolo/yolov5n.yaml data=D trainer.lr=0.1",
        "make nothing",
        "pip install 'detkd[nothing]'",
        "rm -r runs",
    ],
)
def test_a_command_that_would_fail_is_found(command: str, files: Path) -> None:
    (words,) = split(command)
    with pytest.raises((AssertionError, ConfigError, SystemExit)):
        check(words, files)


def test_a_command_line_is_read_and_nothing_runs() -> None:
    (words,) = split("OMP_NUM_THREADS=1 detkd make-synthetic \\\n  shapes --size 32  # small")
    assert words == ["detkd", "make-synthetic", "shapes", "--size", "32"]
    assert parse(make_synthetic.main, words[2:]).size == 32


def test_commands_and_tools_within_a_sentence_exist() -> None:
    for page, text in PAGES.items():
        spans = re.findall(r"`((?:detkd|python tools/|tools/)[^`]*)`", text)
        for span in spans:
            found = re.match(r"detkd ([a-z-]+)|(?:python )?(tools/\w+\.py)", span)
            assert found is None or found[1] in COMMANDS or (ROOT / str(found[2])).is_file(), (page, span)


@pytest.mark.slow
@pytest.mark.real_data
def test_the_quick_start_runs(real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, with one epoch of small pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    (tmp_path / "bccd").symlink_to(real_data / "bccd")
    small = ["train.epochs=1", "train.imgsz=64", "trainer.workers=0"]
    ours = [words for block in blocks("bash", "docs/quick_start.md") for words in split(block.text)]
    for _, command, *arguments in [words for words in ours if words[0] == "detkd"]:
        import_module(f"detkd.commands.{command.replace('-', '_')}").main(
            [*arguments, *(small if "--config" in arguments else ())]
        )
    assert (tmp_path / "runs/bccd/comparison.md").is_file()
    assert (tmp_path / "runs/bccd/inherit-bckd-0/detections.png").is_file()

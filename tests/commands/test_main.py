"""The ``detkd`` command: its table, what it imports, and one line for each bad command line."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from detkd import __version__
from detkd.commands import COMMANDS
from detkd.commands.overview import build_overview, module_of
from tests.commands.calling import ROOT, detkd

SLOW = ("torch", "numpy", "pydantic", "yaml", "rich", "ultralytics", "pytorch_lightning")


@pytest.mark.parametrize("arguments", [[], *([name] for name in COMMANDS)], ids=" ".join)
def test_help_is_shown_without_importing_what_is_slow(arguments: list[str]) -> None:
    blocked = f"import sys; sys.modules.update(dict.fromkeys({SLOW!r}))"
    code = f"{blocked}; sys.argv = ['detkd', *{arguments!r}, '--help']; from detkd.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: {' '.join(['detkd', *arguments])} ")


def test_the_table_lists_every_command_with_what_it_does() -> None:
    text = build_overview().format_help()
    for name, summary in COMMANDS.items():
        assert name in text
        assert " ".join(summary.split()[:3]) in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_examples_of_arguments_that_the_command_takes(name: str) -> None:
    parser: argparse.ArgumentParser = module_of(name).build_parser()
    assert parser.prog == f"detkd {name}"
    _, _, examples = parser.format_help().partition("Examples:\n")
    commands = [
        line.split() for line in examples.replace("\\\n", " ").split("options:")[0].splitlines() if "detkd " in line
    ]
    shown = [words[words.index(name) + 1 :] for words in commands if name in words]
    assert shown
    for arguments in shown:
        options = [word for word in arguments if word.startswith("--")]
        assert set(options) <= set(parser._option_string_actions), options
    assert all(action.help for action in parser._actions), "every argument is explained"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "the following arguments are required: COMMAND; see detkd --help"),
        (["distil"], "invalid choice: 'distil'"),
        (["train-det"], "the following arguments are required: --config; see detkd train-det --help"),
        (["evaluate", "--imgsz", "large"], "argument --imgsz: invalid int value: 'large'; see detkd evaluate --help"),
        (["evaluate", "--nope"], "unrecognized arguments: --nope"),
        (["train-det", "--config", "none.yaml"], "there is none at none.yaml"),
    ],
)
def test_a_bad_command_line_is_one_line(arguments: list[str], says: str) -> None:
    done = detkd(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert says in line


def test_it_says_its_version() -> None:
    assert detkd("--version").stdout == f"detkd {__version__}\n"


def test_a_tool_is_the_command_of_its_name(tmp_path: Path) -> None:
    given = ["--train", "1", "--val", "1", "--test", "1", "--size", "32"]
    assert detkd("make-synthetic", str(tmp_path / "one"), *given).returncode == 0
    tool = [sys.executable, "tools/make_synthetic.py", str(tmp_path / "other"), *given]
    assert subprocess.run(tool, check=False, cwd=ROOT, capture_output=True).returncode == 0
    one, other = ((tmp_path / name / "train.json").read_text() for name in ("one", "other"))
    assert one == other

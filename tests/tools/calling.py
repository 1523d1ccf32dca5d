"""The tools as functions of this process: importing torch anew for each call would take longer than the test."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from detkd.cli import run

if TYPE_CHECKING:
    from types import ModuleType

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def load(name: str) -> ModuleType:
    """The module of a tool."""
    spec = importlib.util.spec_from_file_location(name, TOOLS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(name: str, *arguments: object) -> int:
    """Call a tool with arguments; its exit code."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        run(load(name).main)
    return int(end.value.code or 0)


def refuse(capsys: pytest.CaptureFixture[str], fault: str, name: str, *arguments: object) -> None:
    """Call a tool with faulty arguments: it must end with code 2, and say the fault in one line."""
    assert call(name, *arguments) == 2, arguments
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1, errors
    assert errors[0].startswith("error: ")
    assert fault in errors[0], errors

"""The parser of ``detkd`` as a whole."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from detkd import __version__
from detkd.cli import Parser
from detkd.commands import COMMANDS

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """Distil large vision models into compact ones.

Examples:
    detkd train-det --config configs/yolo/yolov5n.yaml data=DATA.yaml name=teacher
    detkd evaluate --weights runs/teacher/student.pt --data DATA.yaml
    detkd COMMAND --help
"""


def build_overview(*, whole: bool = False) -> argparse.ArgumentParser:
    """The parser of the command line before a command's own arguments.

    Args:
        whole: Whether it knows these, too: every command's file is read then.
    """
    parser = Parser(prog="detkd", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"detkd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, summary in COMMANDS.items():
        own: dict[str, Any] = {"parents": [module_of(name).build_parser()], "add_help": False} if whole else {}
        commands.add_parser(name, help=summary, **own)
    return parser


def module_of(command: str) -> Any:
    """The file of a command."""
    return import_module(f"detkd.commands.{command.replace('-', '_')}")

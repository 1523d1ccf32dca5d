"""The ``detkd`` command: finds the subcommand that is asked for, and reads nothing of the others."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

from detkd import __version__
from detkd.cli import Parser, run
from detkd.commands import COMMANDS

if TYPE_CHECKING:
    import argparse

DESCRIPTION = """Distil large vision models into compact ones.

Examples:
    detkd train-det --config configs/yolo/yolov5n.yaml data=DATA.yaml name=teacher
    detkd evaluate --weights runs/teacher/student.pt --data DATA.yaml
    detkd COMMAND --help
"""


def build_parser() -> argparse.ArgumentParser:
    """The parser of everything before a subcommand's own arguments."""
    parser = Parser(prog="detkd", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"detkd {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary)
    return parser


def main() -> NoReturn:
    """Run the subcommand of the process's command line, and exit."""
    name, rest = next(iter(sys.argv[1:]), None), sys.argv[2:]
    if name not in COMMANDS:
        build_parser().parse_args(sys.argv[1:])  # --help, --version, or a fault
        raise AssertionError(name)
    run(lambda: import_module(f"detkd.commands.{name.replace('-', '_')}").main(rest))


if __name__ == "__main__":
    main()

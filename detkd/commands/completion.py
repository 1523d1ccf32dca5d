r"""Print the script by which a shell completes detkd's commands and options.

    detkd completion SHELL

Examples:
    # bash: this shell, and all later ones
    eval "$(detkd completion bash)"
    detkd completion bash > ~/.local/share/bash-completion/completions/detkd
    # zsh: a folder of $fpath
    detkd completion zsh > ~/.zfunc/_detkd
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.cli import Parser
from detkd.commands.overview import build_overview
from detkd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

SHELLS = ("bash", "zsh", "tcsh")


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd completion", description=__doc__)
    parser.add_argument("shell", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Print the script."""
    shell = build_parser().parse_args(argv).shell
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ConfigError("completion: shtab is not installed: pip install shtab.") from error
    parser = build_overview(whole=True)
    _complete_files(parser, shtab.FILE)
    print(shtab.complete(parser, shell))


def _complete_files(parser: argparse.ArgumentParser, files: Any) -> None:
    """Let arguments that are paths be completed as such, of this parser and of those below it."""
    for action in parser._actions:
        if action.type is Path:
            action.complete = files  # type: ignore[attr-defined]
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below, files)

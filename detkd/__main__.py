"""The ``detkd`` command: finds the subcommand that is asked for, and reads nothing of the others."""

from __future__ import annotations

import sys
from typing import NoReturn

from detkd.cli import run
from detkd.commands import COMMANDS
from detkd.commands.overview import build_overview, module_of


def main() -> NoReturn:
    """Run the subcommand of the process's command line, and exit."""
    name, rest = next(iter(sys.argv[1:]), None), sys.argv[2:]
    if name not in COMMANDS:
        build_overview().parse_args(sys.argv[1:])  # --help, --version, or a fault
        raise AssertionError(name)
    run(lambda: module_of(name).main(rest))


if __name__ == "__main__":
    main()

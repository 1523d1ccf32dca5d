"""The same as ``detkd report``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.report import main

if __name__ == "__main__":
    run(main)

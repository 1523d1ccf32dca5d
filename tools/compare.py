"""The same as ``detkd compare``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.compare import main

if __name__ == "__main__":
    run(main)

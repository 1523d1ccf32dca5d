"""The same as ``detkd evaluate``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.evaluate import main

if __name__ == "__main__":
    run(main)

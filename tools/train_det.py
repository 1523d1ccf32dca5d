"""The same as ``detkd train-det``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.train_det import main

if __name__ == "__main__":
    run(main)

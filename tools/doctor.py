"""The same as ``detkd doctor``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.doctor import main

if __name__ == "__main__":
    run(main)

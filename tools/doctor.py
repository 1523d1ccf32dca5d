"""Say in a minute what will go wrong in a run; see :mod:`detkd.commands.doctor`."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.doctor import main

if __name__ == "__main__":
    run(main)

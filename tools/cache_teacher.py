"""The same as ``detkd cache-teacher``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.cache_teacher import main

if __name__ == "__main__":
    run(main)

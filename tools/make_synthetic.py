"""The same as ``detkd make-synthetic``: see its --help."""

from __future__ import annotations

from detkd.cli import run
from detkd.commands.make_synthetic import main

if __name__ == "__main__":
    run(main)

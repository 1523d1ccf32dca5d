"""The example of the README: it runs as it stands, is short, and its student gains."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def test_the_toy_detector_is_short_and_gains(repository: Path) -> None:
    script = repository / "examples" / "toy_detector.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
    run = subprocess.run(
        [sys.executable, str(script)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    losses = {title: float(value) for title, value in re.findall(r"^(\w+) (\S+)$", run.stdout, re.MULTILINE)}
    assert set(losses) == {"alone", "distilled"}
    assert losses["distilled"] < losses["alone"]

"""A short run of every driver, from its seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

DRIVER = Path(__file__).with_name("drive.py")
TARGETS = ("config", "description", "coco", "yolo", "voc", "mask", "sentences", "index", "weights", "header")
SECONDS = 15


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_what_is_promised_is_raised(target: str, tmp_path: Path) -> None:
    command = [sys.executable, str(DRIVER), target, str(tmp_path / "corpus"), f"-max_total_time={SECONDS}", "-timeout=20"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(DRIVER.parents[2]), "OMP_NUM_THREADS": "1"},
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*"))

"""The command as a process of its own, as a shell starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


def detkd(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``detkd`` to its end."""
    command = [sys.executable, "-m", "detkd", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=environment)


def write_config(folder: Path, data: Path, /, **changes: Any) -> Path:
    """The configuration of a run of two epochs; `changes` replace whole sections."""
    tree = {
        "name": "run",
        "output": str(folder / "runs"),
        "data": str(data),
        "distill": None,
        "train": {"epochs": 2, "imgsz": 64, "batch": 4},
        "evaluate": ["val"],
    }
    (folder / "config.yaml").write_text(yaml.safe_dump({**tree, **changes}))
    return folder / "config.yaml"

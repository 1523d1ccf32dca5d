"""Files that an attacker would write. What they carry makes a folder: where it is there, it has been run."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Bomb:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def mark_of(path: Path) -> Path:
    """The folder that what `path` carries makes."""
    return path.parent / f"{path.name}-was-run"


def write_checkpoint(path: Path, **content: Any) -> Path:
    """A checkpoint of torch with a bomb beside `content`."""
    torch.save({**content, "bomb": Bomb(mark_of(path))}, path)
    return path


def write_pickle(path: Path) -> Path:
    """A bare pickle, as torch wrote before it wrote zips."""
    path.write_bytes(pickle.dumps(Bomb(mark_of(path)), protocol=2))
    return path


def write_label_cache(path: Path) -> Path:
    """ultralytics' cache of labels with a bomb instead."""
    content = np.array(None, dtype=object)
    content[()] = {"bomb": Bomb(mark_of(path))}
    with path.open("wb") as file:
        np.save(file, content, allow_pickle=True)
    return path

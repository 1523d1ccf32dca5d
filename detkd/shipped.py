"""The configurations that come with detkd: beside the package in a clone, inside it where it is installed."""

from __future__ import annotations

from pathlib import Path

FOLDER = "configs"
_PACKAGE = Path(__file__).resolve().parent


def shipped_configurations() -> Path:
    """Their folder."""
    inside = _PACKAGE / FOLDER  # first, as beside an installed package another's folder of that name may lie
    return inside if inside.is_dir() else _PACKAGE.parent / FOLDER


def find_configuration(path: Path) -> Path:
    """A file of the user's, or where there is none, the one that comes with detkd if `path` begins with ``configs``."""
    if path.exists() or path.parts[:1] != (FOLDER,):
        return path
    shipped = shipped_configurations().joinpath(*path.parts[1:])
    return shipped if shipped.is_file() else path

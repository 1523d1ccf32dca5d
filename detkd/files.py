"""Files that are either whole or not there."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.errors import ConfigError, DetkdError, StorageError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


_REMAINS = re.compile(r"\..+-[a-z0-9_]{8}(\.\w+)?")  # names of mkstemp


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `path` when the block ends well, and vanishes when it raises.

    Raises:
        ConfigError: If there can be no such file.
        StorageError: If there is no room for it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(f"{path} is a folder")
        if path.exists() and not path.is_file():
            raise OSError(f"{path} is no regular file, and would be lost")
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    except OSError as error:
        raise ConfigError(f"Expected {path} to be a file that can be written, but: {one_line(error)}") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)  # mkstemp's 0600 would hide the file from others
        temporary.replace(path)
    except Exception as error:
        if isinstance(error, DetkdError) or not _is_of_the_disk(error):
            raise
        raise StorageError(
            f"Expected room for {path}, but: {one_line(error)}. Free some and go on; what was there is whole."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def remove_remains(folder: Path) -> None:
    """Remove what killed processes have left half-written below a folder in which none is at work."""
    _remove_remains(folder.rglob(".*"))


def remove_remains_of(path: Path) -> None:
    """Remove what killed processes have left half-written of a file that none is writing."""
    _remove_remains(path.parent.glob(f".{path.stem}-*{path.suffix}"))


def _remove_remains(found: Iterable[Path]) -> None:
    for path in found:
        if _REMAINS.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def _is_of_the_disk(error: Exception) -> bool:
    """Whether a write failed for want of room or by the disk; torch and safetensors say so in words."""
    words = ("inline_container", "PytorchStreamWriter", "I/O error")
    return isinstance(error, OSError) or any(word in str(error) for word in words)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole; NaN and infinities, which JSON lacks, become null."""
    write_text(path, json.dumps(finite(content), indent=2, allow_nan=False) + "\n")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file whole."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def finite(content: Any) -> Any:
    """The content with null, which JSON has, in place of NaN and infinities, which it lacks."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return content

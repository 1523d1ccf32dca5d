"""ultralytics kept from running what files say: it would unpickle checkpoints and caches of labels as they are."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

_lock = threading.Lock()
_inside = 0  # blocks that are open, in all threads
_before: list[tuple[Any, str, Any]] = []  # what the first of them has replaced


@contextmanager
def restricted() -> Iterator[None]:
    """Let ultralytics, while the block lasts, build nothing out of files but its own and torch's layers.

    ultralytics has such a mode for checkpoints and the yaml of models. It is chosen by the environment when ultralytics is
    imported, which may have been before detkd, and it leaves two doors open: the checkpoints that a training ends with
    (`best.pt` may be from the run that was resumed), and the pickled ``labels.cache`` beside a data set. The caches are
    neither read nor written: labels are read anew. The others load as in that mode.
    """
    global _inside  # noqa: PLW0603
    with _lock:
        if not _inside:
            _before[:] = _replace()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                for module, name, value in _before:
                    setattr(module, name, value)


def _replace() -> list[tuple[Any, str, Any]]:
    """Put the restricted loading in place; returns what was there."""
    from ultralytics.data import dataset
    from ultralytics.nn import tasks
    from ultralytics.utils import torch_utils

    before: list[tuple[Any, str, Any]] = []
    for module, name, value in (
        (tasks, "SAFE_LOAD", True),
        (torch_utils, "torch_load", _load_known),
        (dataset, "load_dataset_cache_file", _refuse_cache),
        (dataset, "save_dataset_cache_file", _write_no_cache),
    ):
        before.append((module, name, getattr(module, name)))
        setattr(module, name, value)
    return before


def _load_known(file: Any, **_: Any) -> Any:
    """Load a checkpoint of known classes on the CPU."""
    from ultralytics.nn.tasks import torch_safe_load

    return torch_safe_load(str(file), safe_only=True)[0]


def _refuse_cache(path: Any) -> NoReturn:
    """Stand for a cache that is not there: ultralytics then reads the labels themselves."""
    raise FileNotFoundError(path)


def _write_no_cache(_: str, __: Any, content: dict[str, Any], version: str) -> None:
    """Stand for the writing of a cache, which also says what it is of."""
    content["version"] = version

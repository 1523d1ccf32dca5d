"""The making of a teacher's cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import CacheError
from detkd.teachers.store import Index, View
from detkd.teachers.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

    from detkd.teachers.source import Source
    from detkd.teachers.store import Shard


class CacheMaker:
    """Makes what a folder lacks of a cache.

    Args:
        source: What to make it from.
        folder: The cache.
        batch: Pictures that the teacher sees at a time.

    Attributes:
        damaged: Names of shards that were there, but not as they were written; they are made anew.
        missing: All shards to be made.
        bytes: Their size.

    Raises:
        CacheError: If the folder holds another cache, or there is no room.
    """

    def __init__(self, source: Source, folder: Path, batch: int) -> None:
        self._source, self._batch = source, batch
        plan = Index.plan(source.fingerprint(), len(source.pictures), source.fields)
        self._writer = Writer(folder, plan, source.pictures.counts)
        self.damaged = self._writer.drop_damaged()
        self.missing = self._writer.missing()
        self.bytes = self._writer.check_space()

    def make(self, progress: Callable[[Shard], None]) -> None:
        """Run the teacher on all views that are missing, and write what it says.

        Args:
            progress: Called after each shard, also where another process made it.

        Raises:
            CacheError: If the teacher says NaN, or the folder cannot be written.
        """
        self._writer.fill(self._compute, progress)

    def _compute(self, shard: Shard, images: range) -> Mapping[str, Tensor]:
        views = [View(shard.stage, shard.view, image) for image in images]
        parts = [
            {name: tensor.cpu() for name, tensor in self._source.pack(outputs).items()}
            for outputs in self._source.outputs(views, self._batch)
        ]
        tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        faulty = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
        if faulty:
            raise CacheError(f"Expected finite outputs of the teacher, but {faulty} hold NaN. Check its weights.")
        return tensors

"""Writing of a cache of teacher outputs: resumable, and safe under several processes."""

from __future__ import annotations

import dataclasses
import fcntl
import shutil
import zlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from detkd.errors import CacheError, one_line
from detkd.files import replacing, write_json
from detkd.teachers.store import INDEX, File, Index, Shard, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor


class Writer:
    """Fills a folder with the shards that it lacks.

    The index lists a shard once its file is whole, so a process may be killed at any moment. Several processes share the
    work: each shard is locked while one computes it, and the system lets go of a killed process's locks.

    Args:
        folder: The cache, made when the first shard is.
        plan: From :meth:`detkd.teachers.store.Index.plan`.
        views: Number of views of each stage.

    Raises:
        CacheError: If the folder holds a cache of something else.
    """

    def __init__(self, folder: Path, plan: Index, views: Mapping[str, int]) -> None:
        self.folder = folder
        self._views = dict(views)
        self._index = self._read(plan)

    def missing(self) -> list[Shard]:
        """The shards still to be made."""
        return [shard for shard in self._index.shards_of(self._views) if shard.name not in self._index.shards]

    def check_space(self) -> int:
        """The bytes still to be written.

        Raises:
            CacheError: If the disk has not as many free.
        """
        needed = sum(self._index.bytes_of(shard) for shard in self.missing())
        home = next(folder for folder in (self.folder.absolute(), *self.folder.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(home).free
        if needed > free:
            raise CacheError(
                f"Expected {needed / 2**30:.2f} GiB free for the teacher cache at {self.folder}, but there are "
                f"{free / 2**30:.2f} GiB. Give fewer distill.teacher.views or anchors, leave terms on feature maps out, or "
                "take another disk."
            )
        return needed

    def drop_damaged(self) -> list[str]:
        """Strike shards off the index whose file is not as it was written; returns their names."""
        damaged = [name for name, file in self._index.shards.items() if File.of(self.folder / name) != file]
        if damaged:
            self._update(lambda shards: {name: file for name, file in shards.items() if name not in damaged})
        return damaged

    def fill(self, compute: Callable[[Shard, range], Mapping[str, Tensor]], progress: Callable[[Shard], None]) -> None:
        """Make every missing shard.

        Args:
            compute: From a shard and its images to the stacked fields, [images, ...] each.
            progress: Called after each shard, also where another process made it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CacheError(
                f"Expected distill.teacher.cache to be a folder that can be written, but: {one_line(error)}"
            ) from error
        self._update(dict)
        todo = self.missing()
        for wait in (False, True):  # what another process is at is looked at again in the end
            left = []
            for shard in todo:
                with _locked(self.folder / ".shards.lock", shard.name, wait=wait) as mine:
                    if not mine:
                        left.append(shard)
                        continue
                    self._make(shard, compute)
                progress(shard)
            todo = left

    def _make(self, shard: Shard, compute: Callable[[Shard, range], Mapping[str, Tensor]]) -> None:
        self._index = self._read(self._index)
        if shard.name in self._index.shards:
            return
        path = self.folder / shard.name
        for remains in self.folder.glob(f".{path.stem}-*"):  # of a killed process; a living one would hold the lock
            remains.unlink()
        tensors = {name: tensor.contiguous() for name, tensor in compute(shard, self._index.images_of(shard)).items()}
        with replacing(path) as temporary:
            save_file(tensors, temporary, metadata=describe(self._index, shard))
        file = File.of(path)
        assert file is not None
        self._update(lambda shards: {**shards, shard.name: file})

    def _read(self, plan: Index) -> Index:
        """The index on disk, which must be of the plan; the plan where there is none."""
        if not (self.folder / INDEX).exists():
            return plan
        index = Index.load(self.folder)
        index.check_fingerprint(self.folder, plan.fingerprint)
        if (index.fields, index.images) != (plan.fields, plan.images):
            raise CacheError(
                f"Expected the teacher cache at {self.folder} to hold the fields {sorted(plan.fields)}, but it holds "
                f"{sorted(index.fields)}. Give another folder as distill.teacher.cache."
            )
        return index

    def _update(self, change: Callable[[Mapping[str, File]], Mapping[str, File]]) -> None:
        with _locked(self.folder / ".index.lock", INDEX, wait=True):
            for remains in self.folder.glob(f".{Path(INDEX).stem}-*"):  # of a killed process, since the lock is ours
                remains.unlink()
            index = self._read(self._index)
            self._index = dataclasses.replace(index, shards=dict(sorted(change(index.shards).items())))
            write_json(self.folder / INDEX, self._index.as_dict())


@contextmanager
def _locked(path: Path, name: str, *, wait: bool) -> Iterator[bool]:
    """Lock a name against other processes; yields False if another holds it and `wait` is not set.

    The lock is one byte of a file that many names share: the system frees it when the process ends, however it ends.
    """
    with path.open("ab") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, zlib.crc32(name.encode()))
        except (BlockingIOError, PermissionError):
            yield False
            return
        yield True

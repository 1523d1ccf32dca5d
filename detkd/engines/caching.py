"""The making of teachers' caches from a run's configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.engines.distillation import cache_source
from detkd.engines.families import FAMILIES, build_model, build_teacher
from detkd.engines.tasks import task_of
from detkd.errors import ConfigError
from detkd.report.reporter import reporter
from detkd.teachers.making import CacheMaker

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch
    from torch import nn

    from detkd.config import DistillConfig, RunConfig
    from detkd.teachers.pictures import Pictures
    from detkd.teachers.source import Source


def cache_teachers(config: RunConfig) -> list[Path]:
    """Make, go on with or mend the cache of every teacher that has one configured.

    Args:
        config: A run that reads the caches.

    Returns:
        The folders.

    Raises:
        DetkdError: If the configuration, the data or the weights do not fit, or there is no room.
    """
    if config.distill is None or config.distill.views is None:
        raise ConfigError("distill.teacher.cache: expected the folder to make, but got none.")
    dataset = task_of(config).load_data(config, ("train",))
    engine = FAMILIES[config.student.family].engine
    tokenizer = getattr(dataset, "tokenizer", None)  # of sentences
    student, _ = build_model(config.student, dataset.names, role="student", imgsz=config.train.imgsz, tokenizer=tokenizer)
    pictures = engine.training_views(config, dataset, student)
    assert pictures is not None
    device = engine.torch_device(config.train.device)
    size = {"batch": config.train.batch, "imgsz": config.train.imgsz}
    return make_caches(student, dataset.names, config.distill, pictures, device, **size, tokenizer=tokenizer)


def make_caches(
    student: nn.Module,
    names: Sequence[str],
    config: DistillConfig,
    pictures: Pictures,
    device: torch.device,
    *,
    batch: int,
    imgsz: int,
    tokenizer: str | None = None,
) -> list[Path]:
    """Make the cache of every teacher that has one configured.

    Args:
        student: A student that will read it.
        names: Classes of the data set.
        config: The teachers and the terms.
        pictures: The views of the run.
        device: Where the teachers run.
        batch: Pictures that they see at a time.
        imgsz: Side of the student's input in pixels.
        tokenizer: What makes tokens of sentences, as JSON.

    Returns:
        The folders.
    """
    folders = []
    for spec in config.all_teachers:
        if spec.cache is None:
            continue
        teacher, origin = build_teacher(spec, names, imgsz, tokenizer)
        reporter().note(f"teacher: {origin}")
        _make(cache_source(student, teacher.to(device), spec, config, pictures), spec.cache, batch)
        folders.append(spec.cache)
    return folders


def _make(source: Source, folder: Path, batch: int) -> None:
    """Make one cache, and say beforehand how large it will be."""
    maker = CacheMaker(source, folder, batch)
    for name in maker.damaged:
        reporter().note(f"{folder / name}: damaged, made anew")
    missing = len(maker.missing)
    reporter().note(f"{folder}: {_describe_size(source)}, {missing} shards of {_size(maker.bytes)} to make")
    with reporter().counting(folder.name, missing, done=0, unit="shards") as progress:
        maker.make(lambda shard: progress.finished(shard.name))


def _describe_size(source: Source) -> str:
    """Images, views, and what a view consists of."""
    views = " + ".join(f"{count} {stage}" for stage, count in source.pictures.counts.items())
    parts: dict[str, int] = {}
    for name, field in source.fields.items():
        kind = name.split(".")[-1] if name.startswith("heads.") else name.split(".")[0]
        parts[kind] = parts.get(kind, 0) + field.bytes
    listed = ", ".join(f"{kind} {_size(size)}" for kind, size in parts.items())
    return f"{len(source.pictures)} images x ({views}) views at {_size(sum(parts.values()))} ({listed})"


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 2**10:
            return f"{count:.4g} {unit}"
        count /= 2**10
    return f"{count:.4g} GiB"

"""The whole examination of a run, planned or finished."""

from __future__ import annotations

import contextlib
import copy
import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from detkd.config import load_config
from detkd.doctor import cost
from detkd.doctor.environment import check_extension
from detkd.doctor.findings import Finding, Kind, passed
from detkd.doctor.fit import MISFIT, check_fit
from detkd.doctor.gradients import check_gradients
from detkd.doctor.hindsight import check_record
from detkd.doctor.observing import observe
from detkd.doctor.teacher import check_teachers
from detkd.doctor.wiring import check_wiring
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES
from detkd.engines.kept import find_baseline
from detkd.engines.run import build_models, check_settings
from detkd.engines.tasks import task_of
from detkd.errors import AdapterError, CacheError, ConfigError, DataError, WeightsError
from detkd.memory import available_memory, peak_memory
from detkd.model_config import BUILT
from detkd.report.records import read_results
from detkd.report.reporter import SilentReporter, reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from detkd.config import RunConfig
    from detkd.distiller import Distiller

CACHE = Kind(
    "cache.refused",
    "error",
    "the cache is not what the teacher says of this run's pictures",
    "It was made from another teacher, other pictures, another augmentation or size; or it is incomplete or damaged.",
    "Make it anew with detkd cache-teacher and this very configuration, in another folder.",
)
MOVED = Kind(
    "run.moved",
    "note",
    "the record alone was looked at",
    "The run's data or the teacher's weights are no longer where its configuration says.",
    "Give their new places as key=value.",
)
KINDS = (CACHE, MOVED)

STEPS = 8  # of the optimizer that are watched


def examine(config: RunConfig, *, seconds: float = 60.0) -> list[Finding]:
    """Look at everything that can go wrong in a run; nothing is written to its folder.

    Args:
        config: The run. Where its folder holds a finished one, that one's student is looked at, and its record.
        seconds: After which no further step is made, and no further picture judged.

    Raises:
        DetkdError: If the configuration, the data or the weights are faulty in themselves.
    """
    folder = config.output / config.name
    findings = check_extension()
    if not (folder / "results.json").is_file():
        return findings + _examine_training(alone(config), seconds, config)
    findings += _examine_record(config, folder)
    try:
        return findings + _examine_training(_finished(alone(config), folder), seconds, config, judge=False)
    except (ConfigError, DataError, WeightsError) as error:
        return [*findings, MOVED.found(str(error).splitlines()[0])]


def load_run(path: Path, overrides: Sequence[str]) -> RunConfig:
    """Read a run's configuration, or that of a finished run in a folder.

    Raises:
        ConfigError: With one line for each fault.
    """
    if not path.is_dir():
        return load_config(path, overrides)
    config = load_config(path / "config.yaml", overrides)  # wherever the folder lies now
    return config.model_copy(update={"output": path.parent, "name": path.name})


def alone(config: RunConfig) -> RunConfig:
    """The same run in one process, of which no service is told: on its first device, with that one's share of the batch."""
    devices = config.train.device.split(",")
    train = config.train.model_copy(
        update={"device": devices[0], "batch": max(1, config.train.batch // len(devices))},
    )
    several = {"strategy", "devices", "num_nodes"}
    trainer = {key: value for key, value in config.trainer.items() if key not in several}
    return config.model_copy(update={"train": train, "trainer": trainer, "loggers": ()})


class _Notes(SilentReporter):
    """Keeps what would be said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.lines.append(text)


class _Models(NamedTuple):
    student: nn.Module
    teachers: list[nn.Module]
    distiller: Distiller | None


def _examine_record(config: RunConfig, folder: Path) -> list[Finding]:
    task, results, baseline = task_of(config), read_results(folder), find_baseline(folder)
    alone = None if baseline is None else read_results(baseline)
    try:
        return check_record(results, config.distill, watched=task.WATCHED, metric=task.METRICS[0], alone=alone)
    except (KeyError, TypeError) as error:
        raise DataError(
            f"Expected {folder / 'results.json'} to be a run's, but: {type(error).__name__} {error}."
        ) from error


def _finished(config: RunConfig, folder: Path) -> RunConfig:
    """A run that starts where a finished one ended."""
    own = dict.fromkeys(("model", *BUILT))  # the checkpoint says them
    student = config.student.model_copy(update={**own, "weights": folder / FAMILIES[config.family].checkpoint})
    distill = config.distill.model_copy(update={"inherit": False}) if config.distill is not None else None
    return config.model_copy(update={"student": student, "distill": distill})


def _examine_training(config: RunConfig, seconds: float, whole: RunConfig, *, judge: bool = True) -> list[Finding]:
    """Look at a run's models, data and first steps, and judge its teachers unless a record already has.

    Args:
        config: What one process does of it.
        seconds: See :func:`examine`.
        whole: The run of all processes, whose steps count.
        judge: Whether to judge its teachers.
    """
    begin = time.monotonic()
    dataset = task_of(config).load_data(config)
    check_settings(config)
    images, gathered = len(dataset.images("train")), FAMILIES[config.family].engine.batches_per_step(config)
    steps = cost.count_steps(images, whole.train.batch, whole.train.epochs, gathered)
    findings = [cost.check_steps(steps, gathered)]
    models, found = _build(config, dataset)
    findings += found
    if models is None:
        return findings
    if CACHE.code in {finding.check for finding in found}:
        config = _without_cache(config)  # what is measured from here on is of the teacher that runs instead
    student, teachers, distiller = models
    findings += check_fit(student, teachers, config)
    if judge:
        findings += check_teachers(student, teachers, config, dataset, seconds=seconds / 3)
    findings += cost.check_batch(student, min(config.train.batch, images))
    memory = _memory(config, dataset, models)
    findings.append(memory)
    if memory.severity == "error":
        return findings
    left = max(seconds - (time.monotonic() - begin), seconds / 3)
    seen = observe(student, distiller, config, dataset, steps=STEPS, seconds=left)
    findings += check_wiring(seen)
    findings += check_gradients(seen, config.distill) if config.distill is not None else []
    return findings + cost.estimate_time(seen.seconds, steps * gathered)


def _build(config: RunConfig, dataset: Any) -> tuple[_Models | None, list[Finding]]:
    """The models of the run; with what refuses to be built said, and without its cache where that one is refused."""
    words = _Notes()
    try:
        with reporting(words):
            models = _Models(*build_models(config, dataset))
    except CacheError as error:
        live, findings = _build(_without_cache(config), dataset)
        return live, [CACHE.found(str(error)), *findings]
    except AdapterError as error:
        return None, [MISFIT.found(str(error))]
    findings = [passed("models", line) for line in words.lines]
    if config.distill is not None and config.distill.views is not None:
        findings.append(passed("cache", "It holds what the teacher says of the views that were compared."))
    return models, findings


def _without_cache(config: RunConfig) -> RunConfig:
    assert config.distill is not None
    live = [spec.model_copy(update={"cache": None}) for spec in config.distill.all_teachers]
    distill = config.distill.model_copy(update={"teacher": None, "teachers": tuple(live)})
    return config.model_copy(update={"distill": distill})


def _memory(config: RunConfig, dataset: Any, models: _Models) -> Finding:
    """What a step takes, from one of few pictures: one of all might end the process."""
    engine, images = FAMILIES[config.family].engine, min(config.train.batch, len(dataset.images("train")))
    batch = min(images, cost.TRIAL)
    small = config.model_copy(update={"train": config.train.model_copy(update={"batch": batch})})
    student, teachers = copy.deepcopy(models.student), [copy.deepcopy(teacher) for teacher in models.teachers]
    distiller = None
    if small.distill is not None:
        views = engine.training_views(small, dataset, student)  # or a cached teacher would be measured while it runs
        distiller = build_distiller(student, teachers, small.distill, config.train.imgsz, views)
    device = engine.torch_device(config.train.device).type

    with _quiet_profiler():
        measured = peak_memory(lambda: observe(student, distiller, small, dataset, steps=1), device)
    parameters = sum(parameter.numel() for parameter in student.parameters() if parameter.requires_grad)
    needed = cost.scaled_memory(measured, batch, images, parameters)
    return cost.check_memory(needed, available_memory(device))


@contextlib.contextmanager
def _quiet_profiler() -> Iterator[None]:
    """Keep torch's profiler from writing to the standard error as its libraries do, past Python."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)

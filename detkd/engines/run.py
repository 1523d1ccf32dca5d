"""One run from configuration to results: check, train, evaluate, report."""

from __future__ import annotations

import copy
import os
import platform
import resource
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import torch

from detkd import __version__
from detkd.adapters.families import make_any_adapter
from detkd.config import dump_config
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES, build_model, build_teacher
from detkd.engines.kept import CONFIG, describe_changes, find_baseline, keep_weights, other_weights
from detkd.engines.tasks import Judged, task_of
from detkd.errors import ConfigError, WeightsError
from detkd.evaluation.cost import measure_cost
from detkd.files import copy_file, remove_remains, write_json, write_text
from detkd.inherit import select_weights
from detkd.memory import keep_freed_memory
from detkd.processes import alone_in, is_first_process
from detkd.report.console import results_table
from detkd.report.html.report import FILE as REPORT
from detkd.report.html.report import write_report
from detkd.report.loggers import missing_loggers
from detkd.report.plots import plot_training
from detkd.report.reporter import reporter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

    from detkd.config import RunConfig
    from detkd.distiller import Distiller

SCHEMA_VERSION = 2
PACKAGES = ("torch", "torchvision", "ultralytics", "pytorch-lightning", "albumentations", "numpy", "pycocotools")


def run_config(config: RunConfig, *, resume: bool = False) -> Path:
    """Train a student as configured and leave a run folder with its checkpoint and results.

    Everything that can be checked is checked before the folder is made. Of several processes that train together, the first
    one writes and prints.

    Args:
        config: The run.
        resume: Go on from the last epoch of a run that was cut short, with the same configuration.

    Returns:
        The run folder: ``config.yaml``, ``results.json``, ``report.html``, the student's checkpoint and its engine's
        folder, see docs/run_folder.md.

    Raises:
        DetkdError: If the configuration, the data or the weights do not fit.
    """
    if config.train.device == "cpu":
        keep_freed_memory()
    prepared = prepare_run(config, resume=resume)
    with alone_in(config.output / config.name):
        return _train_and_judge(config, *prepared, resume=resume)


def _train_and_judge(
    config: RunConfig,
    dataset: Any,
    student: nn.Module,
    teachers: list[nn.Module],
    distiller: Distiller | None,
    *,
    resume: bool,
) -> Path:
    """What :func:`run_config` does when all has been checked."""
    folder, task, family = config.output / config.name, task_of(config), FAMILIES[config.student.family]
    if is_first_process():
        remove_remains(folder)
        write_text(folder / CONFIG, dump_config(config))
        if not resume:  # or what was learnt before might be of other weights
            keep_weights(folder, config)
    trained = family.engine.train(student, distiller, config, dataset, folder, resume=resume)
    if not is_first_process():
        return folder
    copy_file(trained.checkpoint, folder / family.checkpoint)
    models = {
        "student": Judged(family.load(folder / family.checkpoint, config.train.imgsz), family, {}, config.train.imgsz)
    }
    taught_by = judged_teachers(config, teachers)
    roles, models = list(taught_by), {**models, **taught_by}
    costs = measure_cost({role: (judged.model, judged.imgsz) for role, judged in models.items()})
    metrics = task.evaluate(models, dataset, config, folder)
    report = {role: {**asdict(cost), "metrics": metrics[role]} for role, cost in costs.items()}
    results = {
        "schema_version": SCHEMA_VERSION,
        "task": config.task,
        "family": config.student.family,
        "name": config.name,
        "seed": config.train.seed,
        "epochs": len(trained.history),
        "train_seconds": trained.seconds,
        "peak_memory_mib": _peak_memory_mib(),
        "host": _describe_host(),
        "versions": _describe_versions(),
        "data": {"path": str(config.data), "images": {s: len(dataset.images(s)) for s in dataset.splits}},
        "student": report["student"],
        "teachers": [report[role] for role in roles],
        "history": trained.history,
        "distill_weights": trained.weights,
        "checkpoint": family.checkpoint,
        "command": sys.argv,
    }
    plot_training(trained.history, folder / "training.png", config.name, task.WATCHED)
    write_json(folder / "results.json", results)
    write_report(folder, find_baseline(folder))
    reporter().result(
        {"event": "result", "folder": str(folder), "student": results["student"], "teachers": results["teachers"]},
        results_table([(role, report[role]) for role in (*roles, "student")], config.evaluate[-1], task.METRICS),
        *(str(folder / name) for name in (family.checkpoint, "results.json", "training.png", task.PICTURES, REPORT)),
    )
    return folder


def prepare_run(config: RunConfig, *, resume: bool = False) -> tuple[Any, nn.Module, list[nn.Module], Distiller | None]:
    """Check everything that can be checked before a run begins, and build what it needs; nothing is written.

    Args:
        config: The run.
        resume: Whether it goes on.

    Returns:
        The data set, the student, its teachers, and the distiller between them.

    Raises:
        DetkdError: If the configuration, the data or the weights do not fit.
    """
    _check_folder(config.output / config.name, config, resume)
    dataset = task_of(config).load_data(config)
    check_settings(config)
    return dataset, *build_models(config, dataset)


def check_settings(config: RunConfig) -> None:
    """Refuse weights and loggers that are not there, and what the engine does not know.

    Raises:
        WeightsError: Naming the first file that is missing.
        ConfigError: With one line for each fault.
    """
    for spec in (config.student, *(config.distill.all_teachers if config.distill is not None else ())):
        folder = spec.family == "text" and spec.weights is not None and spec.weights.is_dir()  # of transformers
        if spec.weights is not None and not spec.weights.is_file() and not folder:
            raise WeightsError(f"Expected a weights file, but there is none at {spec.weights}.")
    if missing := missing_loggers(config.loggers):
        raise ConfigError("\n".join(missing))
    FAMILIES[config.student.family].engine.check(config)


def build_models(config: RunConfig, dataset: Any) -> tuple[nn.Module, list[nn.Module], Distiller | None]:
    """Build the student, its teachers, and the distiller between them, which is tried once.

    Raises:
        DetkdError: If the models cannot be built or do not fit each other in what a term needs.
    """
    say = reporter().note
    torch.manual_seed(config.train.seed)  # the same student for the same seed, with or without a teacher
    tokenizer = getattr(dataset, "tokenizer", None)  # of sentences
    student, origin = build_model(
        config.student, dataset.names, role="student", imgsz=config.train.imgsz, tokenizer=tokenizer
    )
    say(f"student: {origin}")
    _check_classes(make_any_adapter(student).class_names, dataset.names)
    if config.distill is None:
        return student, [], None
    teachers = []
    for spec in config.distill.all_teachers:
        if spec.ema is not None:
            teachers.append(copy.deepcopy(student))
            say(f"teacher: an average of the student's weights, decay {spec.ema:g}")
            continue
        teacher, origin = build_teacher(spec, dataset.names, config.train.imgsz, tokenizer)
        say(f"teacher: {origin}")
        teachers.append(teacher)
    if config.distill.inherit:
        inherited = select_weights(student, teachers[0], (dataset.names, make_any_adapter(teachers[0]).class_names))
        say(f"student: {inherited} of {len(student.state_dict())} tensors inherited from the teacher")
    views = FAMILIES[config.student.family].engine.training_views(config, dataset, student)
    return student, teachers, build_distiller(student, teachers, config.distill, config.train.imgsz, views)


def judged_teachers(config: RunConfig, teachers: Sequence[nn.Module]) -> dict[str, Judged]:
    """The teachers by their role, as a task judges them: on the CPU, at the size at which they see the pictures."""
    specs = config.distill.all_teachers if config.distill is not None else ()
    judged = {}
    for number, (teacher, spec) in enumerate(zip(teachers, specs, strict=True), start=1):
        family = FAMILIES[config.family if spec.ema is not None else spec.family]
        role = "teacher" if len(teachers) == 1 else f"teacher {number}"
        judged[role] = Judged(teacher.cpu(), family, spec.classes or {}, round(config.train.imgsz * spec.scale))
    return judged


def _check_classes(found: tuple[str, ...], names: tuple[str, ...]) -> None:
    """Refuse a student that counts other classes than the labels do, as one of another data set's checkpoint.

    Raises:
        WeightsError: Listing the classes of both.
    """
    if found != names:
        raise WeightsError(
            f"Expected a student of the data set's classes {list(names)}, but its checkpoint is of {list(found)}. "
            "Give `student.model` beside `student.weights`: it is built for the data set, and filled with what fits."
        )


def _check_folder(folder: Path, config: RunConfig, resume: bool) -> None:
    """Refuse to overwrite a run, or to mix two."""
    if (folder / "results.json").exists():
        raise ConfigError(f"name: expected a new run, but {folder} holds a finished one. Choose another name.")
    last = FAMILIES[config.student.family].engine.LAST_CHECKPOINT
    begun = (folder / last).exists()
    if begun and not resume:
        raise ConfigError(
            f"name: expected a new run, but {folder} holds one that was cut short. Give --resume to go on with it, or "
            "choose another name."
        )
    if resume and not begun:
        raise ConfigError(f"name: expected {folder} to hold a run to resume, but it has no {last}.")
    changes = describe_changes(folder, config) if resume else None
    if changes is not None:
        raise ConfigError(
            f"Expected the configuration that the run was started with, but it differs from {folder / CONFIG}: {changes}. "
            "Resume with that file."
        )
    for path in other_weights(folder, config) if resume else ():
        raise ConfigError(
            f"Expected the weights that {folder} was started with, but {path} has other weights now. Put the former ones "
            "back, or delete the folder to begin anew."
        )


def _peak_memory_mib() -> float:
    """Largest memory of this process so far: the GPU's where one is at work, else the resident set."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes there, KiB elsewhere


def _describe_host() -> dict[str, Any]:
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def _describe_versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"detkd": __version__}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions

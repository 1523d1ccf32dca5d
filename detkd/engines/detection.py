"""One detection run from configuration to results: check, train, evaluate, report."""

from __future__ import annotations

import os
import platform
import resource
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from detkd import __version__
from detkd.adapters.families import make_adapter
from detkd.config import dump_config
from detkd.data.detection import DetectionDataset, check_dataset
from detkd.engines.distillation import build_distiller
from detkd.engines.families import FAMILIES, build_model, build_teacher
from detkd.errors import ConfigError, DataError, WeightsError
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.cost import measure_cost
from detkd.files import copy_file, write_json, write_text
from detkd.inherit import select_weights
from detkd.memory import keep_freed_memory
from detkd.processes import is_first_process
from detkd.report.console import print_table, results_table
from detkd.report.pictures import detection_panels
from detkd.report.plots import plot_training

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import nn

    from detkd.config import DetectionConfig
    from detkd.distiller import Distiller
    from detkd.engines.families import Family

SCHEMA_VERSION = 2
PICTURES = 4
PACKAGES = ("torch", "torchvision", "ultralytics", "pytorch-lightning", "albumentations", "numpy", "pycocotools")


def run_detection(config: DetectionConfig, *, resume: bool = False) -> Path:
    """Train a student as configured and leave a run folder with its checkpoint and results.

    Everything that can be checked is checked before the folder is made. Of several processes that train together, the first
    one writes and prints.

    Args:
        config: The run.
        resume: Go on from the last epoch of a run that was cut short, with the same configuration.

    Returns:
        The run folder: ``config.yaml``, ``results.json``, the student's checkpoint and its engine's folder, see
        docs/run_folder.md.

    Raises:
        DetkdError: If the configuration, the data or the weights do not fit.
    """
    if config.train.device == "cpu":
        keep_freed_memory()
    folder = config.output / config.name
    _check_folder(folder, config, resume)
    dataset = load_data(config)
    check_settings(config)
    family = FAMILIES[config.student.family]
    student, teachers, distiller = build_models(config, dataset)

    if is_first_process():
        write_text(folder / "config.yaml", dump_config(config))
    trained = family.engine.train(student, distiller, config, dataset, folder, resume=resume)
    if not is_first_process():
        return folder
    copy_file(trained.checkpoint, folder / family.checkpoint)
    models = {"student": _Judged(family.load(folder / family.checkpoint, config.train.imgsz), family, {})}
    roles = ["teacher"] if len(teachers) == 1 else [f"teacher {number + 1}" for number in range(len(teachers))]
    for role, teacher, spec in zip(roles, teachers, config.distill.all_teachers if config.distill else (), strict=True):
        models[role] = _Judged(teacher.cpu(), FAMILIES[spec.family], spec.classes or {})
    report = _evaluate(models, dataset, config, folder)
    results = {
        "schema_version": SCHEMA_VERSION,
        "task": "detect",
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
    plot_training(trained.history, folder / "training.png", config.name)
    write_json(folder / "results.json", results)
    print_table(results_table([(role, report[role]) for role in (*roles, "student")], config.evaluate[-1]))
    for name in (family.checkpoint, "results.json", "training.png", "detections.png"):
        print(folder / name)
    return folder


def load_data(config: DetectionConfig) -> DetectionDataset:
    """Read the data set of a run, and refuse what is missing or broken in it.

    Raises:
        DetkdError: If anything is wrong.
    """
    dataset = DetectionDataset.load(config.data)
    if config.family == "yolo" and dataset.format != "yolo":
        raise DataError(
            f"{config.data}: expected `format: yolo` for a YOLO student, which ultralytics trains, but got "
            f"{dataset.format}. Convert the labels, or take a detector of torchvision."
        )
    check_dataset(dataset, ("train", dataset.watched, *config.evaluate))
    return dataset


def check_settings(config: DetectionConfig) -> None:
    """Refuse weights that are not there, and what the engine does not know.

    Raises:
        WeightsError: Naming the first file that is missing.
        ConfigError: With one line for each fault.
    """
    for spec in (config.student, *(config.distill.all_teachers if config.distill is not None else ())):
        if spec.weights is not None and not spec.weights.is_file():
            raise WeightsError(f"Expected a weights file, but there is none at {spec.weights}.")
    FAMILIES[config.student.family].engine.check(config)


def build_models(config: DetectionConfig, dataset: DetectionDataset) -> tuple[nn.Module, list[nn.Module], Distiller | None]:
    """Build the student, its teachers, and the distiller between them, which is tried once.

    Raises:
        DetkdError: If the models cannot be built or do not fit each other in what a term needs.
    """
    say = print if is_first_process() else _keep_quiet
    torch.manual_seed(config.train.seed)  # the same student for the same seed, with or without a teacher
    student, origin = build_model(config.student, dataset.names, role="student", imgsz=config.train.imgsz)
    say(f"student: {origin}")
    _check_classes(student, dataset)
    if config.distill is None:
        return student, [], None
    teachers = []
    for spec in config.distill.all_teachers:
        teacher, origin = build_teacher(spec, dataset.names, config.train.imgsz)
        say(f"teacher: {origin}")
        teachers.append(teacher)
    if config.distill.inherit:
        say(f"student: {select_weights(student, teachers[0])} tensors inherited from the teacher")
    views = FAMILIES[config.student.family].engine.training_views(config, dataset, student)
    return student, teachers, build_distiller(student, teachers, config.distill, config.train.imgsz, views)


def _keep_quiet(_: str) -> None:
    """Print nothing."""


def _check_classes(student: nn.Module, dataset: DetectionDataset) -> None:
    """Refuse a student that counts other classes than the labels do, as one of another data set's checkpoint.

    Raises:
        WeightsError: Listing the classes of both.
    """
    found = make_adapter(student).class_names
    if found != dataset.names:
        raise WeightsError(
            f"Expected a student of the data set's classes {list(dataset.names)}, but its checkpoint is of {list(found)}. "
            "Give `student.model` beside `student.weights`: it is built for the data set, and filled with what fits."
        )


def _check_folder(folder: Path, config: DetectionConfig, resume: bool) -> None:
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
    if resume and (folder / "config.yaml").read_text(encoding="utf-8") != dump_config(config):
        raise ConfigError(
            f"Expected the configuration that the run was started with, but it differs from {folder / 'config.yaml'}. "
            "Resume with that file."
        )


class _Judged(NamedTuple):
    """A model at the end of a run, and its name of each class that it calls otherwise than the data set."""

    model: nn.Module
    family: Family
    classes: Mapping[str, str]


def _evaluate(
    models: Mapping[str, _Judged], dataset: DetectionDataset, config: DetectionConfig, folder: Path
) -> dict[str, Any]:
    """COCO metrics on every wanted split, and cost, of each model; pictures of the last split."""
    costs = measure_cost({role: judged.model for role, judged in models.items()}, config.train.imgsz)
    report: dict[str, Any] = {}
    last = config.evaluate[-1]
    truths = {split: dataset.coco(split) for split in config.evaluate}
    columns = {"ground truth": truths[last]["annotations"]}
    for role, (model, family, classes) in models.items():
        metrics = {}
        predict, names = family.predictor(model), make_adapter(model).class_names
        for split, truth in truths.items():
            named = _in_words_of(names, classes, truth)
            found = predict(dataset.images(split), named, imgsz=config.train.imgsz)
            found = [detection for detection in found if detection["category_id"] is not None]
            if split == last:
                columns[role] = found
            metrics[split] = evaluate_coco(truth, found).as_dict()
        report[role] = {**asdict(costs[role]), "metrics": metrics}
    detection_panels(dataset.images(last)[:PICTURES], columns, truths[last], folder / "detections.png")
    return report


def _in_words_of(names: Sequence[str], classes: Mapping[str, str], truth: Mapping[str, Any]) -> dict[str, Any]:
    """Ground truth with a model's names of its classes; what else the model knows is there without an id."""
    categories = [{**category, "name": classes.get(category["name"], category["name"])} for category in truth["categories"]]
    known = {category["name"] for category in categories}
    others = [{"id": None, "name": name} for name in names if name not in known]
    return {**truth, "categories": [*categories, *others]}


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

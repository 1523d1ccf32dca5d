"""Time a distillation step against what it cannot do without: the student's own step, and the teacher's forward pass.

    python tools/bench_step.py [--student yolov5n.yaml] [--width 0.0625] [--teacher yolov5n.yaml] [--imgsz 256] [--batch 16]
        [--terms bckd,ld] [--threads N] [--rounds N] [--output benchmarks]

Steps are forward, loss and backward on one random batch, as ultralytics' trainer runs them, but for the optimizer.
Contestants take turns, so that a change of the machine's mood meets them all; figures are medians over whole cycles of
eight steps, because `gradient_ratio` measures on every eighth where gradients move, and here always. Writes step-cpu.json
and prints a table.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch

from detkd.cli import run
from detkd.memory import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from detkd.balance import GradientRatio
    from detkd.teachers.store import View

CLASSES = ("a", "b", "c")
OBJECTS = 12  # in each image
CYCLE = 8  # steps from one measurement of gradient_ratio to the next where gradients move
PLAIN, TEACHER, CACHED = "student alone", "teacher's forward", "detkd, teacher from a cache"


def random_batch(size: int, imgsz: int) -> dict[str, torch.Tensor]:
    """A batch as ultralytics' loader gives it."""
    count = size * OBJECTS
    return {
        "img": torch.rand(size, 3, imgsz, imgsz),
        "cls": torch.randint(0, len(CLASSES), (count, 1)).float(),
        "bboxes": torch.cat((torch.rand(count, 2) * 0.8 + 0.1, torch.full((count, 2), 0.15)), 1),
        "batch_idx": torch.arange(size).repeat_interleave(OBJECTS).float(),
    }


def step(model: nn.Module, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    """A training step of a model of ultralytics on a batch."""

    def once() -> None:
        loss, _ = model(batch)
        loss.sum().backward()
        model.zero_grad()

    return once


class Batch:
    """One batch as the pictures of a run, each of which has one view."""

    counts: ClassVar[dict[str, int]] = {"full": 1}

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def load(self, views: Sequence[View], batch: int) -> Iterator[torch.Tensor]:
        """Pick pictures."""
        yield from self.images[[view.image for view in views]].split(batch)

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """Nothing: the cache lives no longer than the batch."""
        return {}


def contestants(arguments: argparse.Namespace, folder: Path) -> dict[str, Callable[[], None]]:
    """What takes turns, by its title; a cache is made in the folder."""
    from detkd.adapters.ultralytics import import_ultralytics
    from detkd.config import ModelConfig, parse_distillation
    from detkd.engines.distillation import build_distiller, cache_source
    from detkd.engines.distilling.ultralytics import DistillationCriterion
    from detkd.engines.weight_log import WeightLog
    from detkd.models.ultralytics import build_yolo
    from detkd.teachers.making import CacheMaker
    from detkd.teachers.store import View

    import_ultralytics()
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.distill_model import DistillationModel

    def student() -> Any:
        torch.manual_seed(0)
        model: Any = build_yolo(ModelConfig(model=arguments.student, width=arguments.width), CLASSES, role="student")[0]
        model.args = get_cfg(overrides={"imgsz": arguments.imgsz})
        return model.train()

    def teacher() -> Any:
        torch.manual_seed(1)
        return build_yolo(ModelConfig(model=arguments.teacher), CLASSES, role="teacher")[0]

    batch: dict[str, Any] = random_batch(arguments.batch, arguments.imgsz)
    batch["views"] = [View("full", 0, image) for image in range(arguments.batch)]
    pictures = Batch(batch["img"])
    steps = {PLAIN: step(student(), batch)}
    for title, changes in (
        ("detkd", {}),
        ("detkd, teacher in bfloat16", {"precision": "bfloat16"}),
        (CACHED, {"cache": folder, "views": 1}),
    ):
        own, model = student(), teacher()
        tree = {
            "teacher": {"model": arguments.teacher, **changes},
            "terms": {name: {} for name in arguments.terms.split(",")},
        }
        config = parse_distillation(tree)
        if title == CACHED:
            source = cache_source(own, model, config.all_teachers[0], config, pictures)
            CacheMaker(source, folder, arguments.batch).make(lambda _: None)
        distiller = build_distiller(own, [model], config, arguments.imgsz, pictures)
        cast("GradientRatio", distiller.balance).longest = CYCLE
        distiller.attach()
        own.criterion = DistillationCriterion(own.init_criterion(), distiller, WeightLog())
        steps[title] = step(own, batch)
        if not changes:
            images = batch["img"].contiguous(memory_format=torch.channels_last)
            steps[TEACHER] = torch.no_grad()(functools.partial(model, images))
    steps["ultralytics' own (distill_model)"] = step(DistillationModel(teacher(), student()).train(), batch)
    return steps


def measure(steps: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of a step of each, over cycles of eight."""
    times: dict[str, list[float]] = {title: [] for title in steps}
    for once in steps.values():
        once()
    for _ in range(rounds):
        cycle = dict.fromkeys(steps, 0.0)
        for _ in range(CYCLE):
            for title, once in steps.items():
                start = time.perf_counter()
                once()
                cycle[title] += time.perf_counter() - start
        for title, seconds in cycle.items():
            times[title].append(seconds / CYCLE * 1e3)
    return {title: statistics.median(values) for title, values in times.items()}


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="yolov5n.yaml", metavar="YAML")
    parser.add_argument("--width", type=float, default=0.0625, help="width multiple of the student")
    parser.add_argument("--teacher", default="yolov5n.yaml", metavar="YAML")
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="cycles of eight steps")
    parser.add_argument("--terms", default="bckd", metavar="NAME,NAME", help="losses, with their defaults")
    parser.add_argument("--output", type=Path, help="folder for step-cpu.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(contestants(arguments, Path(folder)), arguments.rounds)
    alone, floor = found[PLAIN], found[PLAIN] + found[TEACHER]
    print("| step | ms | × student | × (student + teacher's forward) |\n|---|--:|--:|--:|")
    for title, value in found.items():
        print(f"| {title} | {value:.0f} | {value / alone:.2f} | {value / floor:.2f} |")
    if arguments.output is not None:
        settings = {key: value for key, value in vars(arguments).items() if key != "output"}
        report = {"settings": settings, "machine": platform.machine(), "torch": torch.__version__, "milliseconds": found}
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "step-cpu.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)

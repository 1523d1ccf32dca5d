"""Time a distillation step against what it cannot do without: the student's own step, and the teacher's forward pass.

    python tools/bench_step.py [--student yolov5n.yaml] [--width 0.0625] [--teacher yolov5n.yaml] [--imgsz 256] [--batch 16]
        [--terms bckd,ld] [--threads N] [--rounds N] [--output benchmarks]
    python tools/bench_step.py --student fasterrcnn_mobilenet_v3_small_fpn --teacher fasterrcnn_yolov5n_fpn --width 0.25
    python tools/bench_step.py --student unet --teacher unet_resnet18 [--teacher yolov5n.yaml --terms pixel_kl,pkd]

Steps are forward, loss and backward on one random batch, as the student's trainer runs them, but for the optimizer. The
forward pass of a two-stage teacher has its second stage on as many regions as the student trains on.
Contestants take turns, so that a change of the machine's mood meets them all; figures are medians over whole cycles of
eight steps, because `gradient_ratio` measures on every eighth where gradients move, and here always. Of a segmenter's
student the memory is told, too, that losses on logits take beyond the logits, as a multiple of their gradient. Writes
step-cpu-FAMILY.json and prints a table.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler writes into the table otherwise

import torch

from detkd.cli import run
from detkd.memory import keep_freed_memory, peak_memory
from detkd.model_config import ModelConfig
from detkd.types import PixelTargets, Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from detkd.balance import GradientRatio
    from detkd.distiller import Distiller
    from detkd.teachers.store import View

CLASSES = ("a", "b", "c")
OBJECTS = 12  # in each image
BOUNDARY = 2  # pixels on either side of an object's end
SLIM = 0.0625  # width of a student that is no U-Net
CYCLE = 8  # steps from one measurement of gradient_ratio to the next where gradients move
PLAIN, TEACHER, CACHED = "student alone", "teacher's forward", "detkd, teacher from a cache"


def random_labels(size: int, imgsz: int) -> Targets:
    """Boxes and classes of a batch of random pictures."""
    centre, side = torch.rand(size, OBJECTS, 2) * 0.8 + 0.1, torch.tensor([0.075, 0.075])
    boxes = torch.cat((centre - side, centre + side), -1) * imgsz
    return Targets(boxes, torch.randint(0, len(CLASSES), (size, OBJECTS)))


def painted(labels: Targets, imgsz: int) -> PixelTargets:
    """The same objects pixel by pixel; a strip of each picture is ignored."""
    classes = torch.zeros(len(labels.boxes), imgsz, imgsz, dtype=torch.long)
    boundary = torch.zeros(classes.shape, dtype=torch.bool)
    for picture, edges, boxes, kinds in zip(classes, boundary, labels.boxes.long().tolist(), labels.classes, strict=True):
        for (x1, y1, x2, y2), kind in zip(boxes, kinds, strict=True):
            edges[max(0, y1 - BOUNDARY) : y2 + BOUNDARY, max(0, x1 - BOUNDARY) : x2 + BOUNDARY] = True
            edges[y1 + BOUNDARY : y2 - BOUNDARY, x1 + BOUNDARY : x2 - BOUNDARY] = False
            picture[max(0, y1) : y2, max(0, x1) : x2] = 1 + kind
    classes[:, -1] = -1
    return PixelTargets(classes, boundary)


def yolo_step(model: Any, images: torch.Tensor, labels: Targets, distiller: Distiller | None) -> Callable[[], None]:
    """A training step as ultralytics' trainer makes it."""
    from detkd.engines.distilling.ultralytics import DistillationCriterion
    from detkd.engines.weight_log import WeightLog

    x1, y1, x2, y2 = (labels.boxes.flatten(0, 1) / images.shape[-1]).unbind(-1)
    batch = {
        "img": images,
        "cls": labels.classes.flatten()[:, None].float(),
        "bboxes": torch.stack(((x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1), -1),
        "batch_idx": torch.arange(len(images)).repeat_interleave(OBJECTS).float(),
        "views": views_of(images),
    }
    if distiller is not None:
        model.criterion = DistillationCriterion(model.init_criterion(), distiller, WeightLog())

    def once() -> None:
        loss, _ = model(batch)
        loss.sum().backward()
        model.zero_grad()

    return once


def lightning_step(
    model: nn.Module, images: torch.Tensor, labels: Targets | PixelTargets, distiller: Distiller | None
) -> Callable[[], None]:
    """A training step as the Lightning engine makes it."""
    targets: Any = labels
    if isinstance(labels, Targets):
        targets = [{"boxes": boxes, "labels": classes + 1} for boxes, classes in zip(*vars(labels).values(), strict=True)]

    def once() -> None:
        loss = torch.stack(list(model(list(images), targets).values())).sum()
        if distiller is not None:
            loss = loss + distiller(images, labels, loss, views_of(images)).loss
        loss.backward()
        model.zero_grad()

    return once


STEPS: dict[str, Callable[..., Callable[[], None]]] = {
    "yolo": yolo_step,
    "torchvision": lightning_step,
    "unet": lightning_step,
}


def views_of(images: torch.Tensor) -> list[View]:
    """The address of each picture of the batch."""
    from detkd.teachers.store import View

    return [View("full", 0, image) for image in range(len(images))]


def teacher_forward(
    model: nn.Module, student: nn.Module, images: torch.Tensor, labels: Targets | PixelTargets
) -> Callable[[], Any]:
    """The forward pass that distillation needs of a teacher."""
    from detkd.adapters.base import TwoStageAdapter
    from detkd.adapters.families import make_any_adapter

    model.eval()
    own, other = make_any_adapter(student), make_any_adapter(model)
    if not (isinstance(own, TwoStageAdapter) and isinstance(other, TwoStageAdapter)):
        return torch.no_grad()(functools.partial(model, images.contiguous(memory_format=torch.channels_last)))
    own.attach()
    lightning_step(student, images, labels, None)()
    regions = own.take_outputs().regions
    own.detach()
    other.attach()

    @torch.no_grad()
    def once() -> None:
        other.run(images.contiguous(memory_format=torch.channels_last))
        size = (images.shape[2], images.shape[3])
        other.classify(other.take_outputs().features, regions.proposals, size)

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


def student_of(arguments: argparse.Namespace) -> ModelConfig:
    """The student; where no width is given, a U-Net is as it is, and any other slim."""
    family = ModelConfig(model=arguments.student).family
    width = SLIM if arguments.width is None and family != "unet" else arguments.width
    return ModelConfig(model=arguments.student, width=width)


def terms_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The terms: those named, with their defaults, or the recommended ones."""
    from detkd.config import default_terms

    if arguments.terms:
        return {name: {} for name in arguments.terms.split(",")}
    return default_terms(student_of(arguments))


def contestants(arguments: argparse.Namespace, folder: Path) -> dict[str, Callable[[], Any]]:
    """What takes turns, by its title; a cache is made in the folder."""
    from detkd.config import parse_distillation
    from detkd.engines.distillation import build_distiller, cache_source
    from detkd.engines.families import build_model
    from detkd.teachers.making import CacheMaker

    spec = student_of(arguments)
    step = STEPS[spec.family]

    def build(spec: ModelConfig, role: str, seed: int) -> Any:
        torch.manual_seed(seed)
        return build_model(spec, CLASSES, role=role, imgsz=arguments.imgsz)[0]

    def student() -> Any:
        model = build(spec, "student", 0).train()
        if spec.family == "yolo":
            from ultralytics.cfg import get_cfg

            model.args = get_cfg(overrides={"imgsz": arguments.imgsz})  # as its trainer tells it
        return model

    def teacher() -> Any:
        return build(ModelConfig(model=arguments.teacher), "teacher", 1)

    images = torch.rand(arguments.batch, 3, arguments.imgsz, arguments.imgsz)
    boxes = random_labels(arguments.batch, arguments.imgsz)
    labels = painted(boxes, arguments.imgsz) if spec.family == "unet" else boxes
    terms = terms_of(arguments)
    pictures = Batch(images)
    steps: dict[str, Callable[[], Any]] = {
        PLAIN: step(student(), images, labels, None),
        TEACHER: teacher_forward(teacher(), student(), images, labels),
    }
    for title, changes in (
        ("detkd", {}),
        ("detkd, teacher in bfloat16", {"precision": "bfloat16"}),
        (CACHED, {"cache": folder, "views": 1}),
    ):
        own, model = student(), teacher()
        config = parse_distillation({"teacher": {"model": arguments.teacher, **changes}, "terms": terms})
        if title == CACHED:
            source = cache_source(own, model, config.all_teachers[0], config, pictures)
            CacheMaker(source, folder, arguments.batch).make(lambda _: None)
        distiller = build_distiller(own, [model], config, arguments.imgsz, pictures)
        cast("GradientRatio", distiller.balance).longest = CYCLE
        distiller.attach()
        steps[title] = step(own, images, labels, distiller)
    if spec.family == "yolo":
        from ultralytics.nn.distill_model import DistillationModel

        native = DistillationModel(teacher(), student()).train()
        steps["ultralytics' own (distill_model)"] = yolo_step(native, images, labels, None)
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


def logits_memory(arguments: argparse.Namespace) -> dict[str, float]:
    """Peak memory of each loss on a segmenter's logits, forward and backward, beyond its inputs, by the gradient's."""
    from detkd.losses import LOSSES
    from detkd.places import loss_inputs
    from detkd.vocabulary import PIXEL_NAMES

    shape = (arguments.batch, 1 + len(CLASSES), arguments.imgsz, arguments.imgsz)
    labels = painted(random_labels(arguments.batch, arguments.imgsz), arguments.imgsz).classes
    found = {}
    for name in terms_of(arguments):
        wanted = loss_inputs(name)
        if set(wanted) <= set(PIXEL_NAMES):
            loss, student = LOSSES[name](), torch.randn(shape).requires_grad_()
            values = (student, torch.randn(shape), (labels >= 0).float(), labels)
            inputs = dict(zip(("student_pixels", "teacher_pixels", "pixel_weights", "pixel_labels"), values, strict=True))
            peak = peak_memory(lambda loss=loss, given=[inputs[key] for key in wanted]: loss(*given).backward())
            found[name] = peak / (student.numel() * student.element_size())
    return found


def main() -> None:
    """Parse the command line, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="yolov5n.yaml", metavar="MODEL", help="as student.model in a configuration")
    parser.add_argument("--width", type=float, help=f"width multiple of the student (default {SLIM}; 1 of a U-Net)")
    parser.add_argument("--teacher", default="yolov5n.yaml", metavar="MODEL")
    parser.add_argument("--imgsz", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="cycles of eight steps")
    parser.add_argument("--terms", metavar="NAME,NAME", help="losses, with their defaults (default: the recommended ones)")
    parser.add_argument("--output", type=Path, help="folder for step-cpu-FAMILY.json")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(contestants(arguments, Path(folder)), arguments.rounds)
    alone, floor = found[PLAIN], found[PLAIN] + found[TEACHER]
    print("| step | ms | × student | × (student + teacher's forward) |\n|---|--:|--:|--:|")
    for title, value in found.items():
        print(f"| {title} | {value:.0f} | {value / alone:.2f} | {value / floor:.2f} |")
    memory = logits_memory(arguments) if student_of(arguments).family == "unet" else {}
    if memory:
        print("\n| loss on logits | peak memory × gradient |\n|---|--:|")
    for name, ratio in memory.items():
        print(f"| {name} | {ratio:.2f} |")
    if arguments.output is not None:
        settings = {key: value for key, value in vars(arguments).items() if key != "output"}
        settings["width"] = student_of(arguments).width
        report = {
            "settings": settings,
            "machine": platform.machine(),
            "torch": torch.__version__,
            "milliseconds": found,
            **({"extra_memory": memory} if memory else {}),
        }
        arguments.output.mkdir(parents=True, exist_ok=True)
        family = student_of(arguments).family
        (arguments.output / f"step-cpu-{family}.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)

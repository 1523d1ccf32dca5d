"""Evaluate a detector or a U-Net with COCO metrics, or a classifier by its accuracy and calibration.

    detkd evaluate --weights FILE --data DATA.yaml [--split test] [--imgsz N] [--json OUT]
    detkd evaluate --detections results.json --ground-truth test.json [--iou-type segm]

The checkpoint says the family: ultralytics' own (.pt), or detkd's of every other (.safetensors). Of detectors, the data set
may have annotations of YOLO, COCO or Pascal VOC, and masks (segm) are those of a Mask R-CNN. Of U-Nets, it may have
instance maps, semantic PNGs or COCO's masks. How objects are told from their pixels is chosen on the split `val` unless
--instances says it, as --instances threshold=0.5,min_area=8. Of classifiers it is a folder, of which `val` is what training
held out by default.

Examples:
    detkd evaluate --weights runs/student/student.pt --data DATA.yaml --json test.json
    # masks of a Mask R-CNN
    detkd evaluate --weights runs/student/student.safetensors --data DATA.yaml --split val --iou-type segm
    # a U-Net that was trained on scaled pictures, in tiles of the size that it was trained at
    detkd evaluate --weights runs/student/student.safetensors --data DATA.yaml --pictures tiles
    # a classifier of pictures or sentences
    detkd evaluate --weights runs/student/student.safetensors --data cifar10
    # what any other detector has found
    detkd evaluate --detections results.json --ground-truth test.json
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd import __version__
from detkd.cli import Parser
from detkd.commands.speaking import add_speaking_options, speaking
from detkd.errors import ConfigError, WeightsError
from detkd.files import write_json

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from detkd.data.class_folders import PictureDataset
    from detkd.evaluation.instances import InstanceSettings

SMALLEST = 32  # pixels: the stride of a YOLO's coarsest level
BOXES = "bbox"
_SOURCES = {
    "weights",
    "data",
    "split",
    "imgsz",
    "held_out",
    "detections",
    "ground_truth",
    "iou_type",
    "pictures",
    "instances",
}


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    parser = Parser(prog="detkd evaluate", description=__doc__)
    parser.add_argument("--weights", type=Path, help="a run's student.pt or student.safetensors")
    parser.add_argument("--data", type=Path, help="data.yaml; of a classifier the folder of its splits")
    parser.add_argument("--split", default="test", help="(default: test)")
    parser.add_argument("--imgsz", type=int, help="side of the network's input in pixels (default: as it was trained)")
    parser.add_argument("--detections", type=Path, help="COCO results of any detector, instead of --weights and --data")
    parser.add_argument("--ground-truth", type=Path, help="COCO ground truth for --detections")
    parser.add_argument("--iou-type", choices=(BOXES, "segm"), help="boxes or masks (default: boxes, of a U-Net masks)")
    parser.add_argument(
        "--pictures", choices=("fit", "tiles"), help="of a U-Net: scaled, or in tiles (default: as trained)"
    )
    parser.add_argument("--instances", metavar="K=V,...", help="of a U-Net: how objects are told from its pixels")
    parser.add_argument(
        "--held-out",
        type=float,
        metavar="SHARE",
        help="of a classifier of pictures, for --split val without a folder: classify.held_out of its training",
    )
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    add_speaking_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate, and show the numbers."""
    arguments = build_parser().parse_args(argv)
    with speaking(arguments):
        from detkd.report.reporter import reporter

        metrics = _evaluate(arguments)
        source = {key: str(value) for key, value in vars(arguments).items() if value is not None and key in _SOURCES}
        report = {**source, **metrics, "detkd": __version__}
        if arguments.json is not None:
            write_json(arguments.json, report)
        reporter().result({"event": "result", **report}, _table(metrics))


def _evaluate(arguments: argparse.Namespace) -> dict[str, Any]:
    """All numbers in one mapping, ``per_class`` nested."""
    if arguments.detections and arguments.ground_truth:
        from detkd.evaluation.coco import evaluate_coco

        _refuse_pixels(arguments)
        return evaluate_coco(arguments.ground_truth, arguments.detections, arguments.iou_type).as_dict()
    if not (arguments.weights and arguments.data):
        raise ConfigError("Expected --weights and --data, or --detections and --ground-truth.")
    if arguments.imgsz is not None and arguments.imgsz < SMALLEST:
        raise ConfigError(f"--imgsz: expected {SMALLEST} pixels or more, but got {arguments.imgsz}.")
    if not arguments.weights.is_file():  # which says the family
        raise WeightsError(f"Expected a checkpoint, but there is none at {arguments.weights}.")
    from detkd.config import CLASSIFYING
    from detkd.model_config import ModelConfig

    family = ModelConfig.model_validate({"weights": arguments.weights}).family
    if arguments.held_out is not None and (family != "classifier" or arguments.split != "val"):
        raise ConfigError("--held-out: only for --split val of a classifier of pictures; leave it out.")
    if family == "unet":
        return _evaluate_segmenter(arguments)
    return (_evaluate_classifier if family in CLASSIFYING else _evaluate_detector)(arguments, family)


def _evaluate_detector(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    from detkd.data.detection import DetectionDataset, check_dataset
    from detkd.engines.families import FAMILIES
    from detkd.evaluation.coco import evaluate_coco

    _refuse_pixels(arguments)
    dataset = DetectionDataset.load(arguments.data)
    check_dataset(dataset, (arguments.split,))
    truth = dataset.coco(arguments.split)
    family = FAMILIES[name]
    assert family.predictor is not None, "a detector"
    model = family.load(arguments.weights, arguments.imgsz)
    imgsz = family.imgsz(model) if arguments.imgsz is None else arguments.imgsz
    found = family.predictor(model)(dataset.images(arguments.split), truth, imgsz=imgsz)
    return evaluate_coco(truth, found, arguments.iou_type).as_dict()


def _evaluate_segmenter(arguments: argparse.Namespace) -> dict[str, Any]:
    """Metrics of masks and pixels, and how objects were told apart."""
    from detkd.data.segmentation import SegmentationDataset, check_segmentation
    from detkd.evaluation.segmentation import choose_settings, evaluate_segmentation
    from detkd.models.unet import load_model

    if arguments.iou_type == BOXES:
        raise ConfigError(f"--iou-type: expected segm, because a U-Net finds masks, but got {BOXES}.")
    settings = None if arguments.instances is None else _parse_instances(arguments.instances)
    dataset = SegmentationDataset.load(arguments.data)
    if settings is None and "val" not in dataset.splits:
        raise ConfigError("--instances: expected e.g. threshold=0.5,min_area=8, because there is no `val` to choose it on.")
    check_segmentation(dataset, (arguments.split, *(() if settings is not None else ("val",))))
    model = load_model(arguments.weights, arguments.imgsz)
    assert model.architecture is not None, "load_model reads it"
    imgsz, mode = model.architecture.imgsz, arguments.pictures or model.architecture.pictures
    if imgsz % model.stride:
        raise ConfigError(f"--imgsz: expected a multiple of {model.stride} pixels, but got {imgsz}.")
    if settings is None:
        settings = choose_settings(model, dataset, imgsz=imgsz, mode=mode)
    metrics = evaluate_segmentation(model, dataset, arguments.split, imgsz=imgsz, mode=mode, settings=settings)
    return {**metrics.as_dict(), "pictures": mode, "instances": settings.model_dump()}


def _evaluate_classifier(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Accuracy and calibration."""
    from detkd.data.text import TextDataset
    from detkd.engines.classification import evaluate_classifier
    from detkd.engines.families import FAMILIES
    from detkd.models.classifier_files import read_tokenizer

    for option in ("iou_type", "pictures", "instances"):
        if getattr(arguments, option) is not None:
            raise ConfigError(f"--{option.replace('_', '-')}: a classifier finds no objects; leave it out.")
    family = FAMILIES[name]
    model = family.load(arguments.weights, arguments.imgsz)
    dataset: PictureDataset | TextDataset
    if name == "text":
        dataset = TextDataset.load(arguments.data, family.imgsz(model), tokenizer=read_tokenizer(arguments.weights))
    else:
        dataset = _read_pictures(arguments, family.imgsz(model))
    if arguments.split not in dataset.splits:
        raise ConfigError(f"--split: expected one of {list(dataset.splits)}, but got {arguments.split}.")
    return evaluate_classifier(model, dataset, arguments.split)


def _read_pictures(arguments: argparse.Namespace, imgsz: int) -> PictureDataset:
    """The data of a classifier; a `val` without a folder must be the share that it was in training."""
    from detkd.data.class_folders import HELD_OUT, PictureDataset

    share: float | None = arguments.held_out
    if share is not None and not 0 < share < 1:
        raise ConfigError(f"--held-out: expected a share between 0 and 1, but got {share:g}.")
    dataset = PictureDataset.load(arguments.data, imgsz, held_out=HELD_OUT if share is None else share)
    if arguments.split == "val" and dataset.holds_out and share is None:
        raise ConfigError(
            "--held-out: expected the share of the training pictures that `val` was in training (classify.held_out, 0.1 by "
            "default), because there is no folder of it, and the classifier has learnt from all others."
        )
    if share is not None and not dataset.holds_out:
        raise ConfigError(f"--held-out: {arguments.data} has a folder of `val`; leave it out.")
    return dataset


def _refuse_pixels(arguments: argparse.Namespace) -> None:
    """Of a detector: boxes are scored unless masks are asked for, and what only U-Nets have is refused."""
    arguments.iou_type = arguments.iou_type or BOXES
    for option in ("pictures", "instances"):
        if getattr(arguments, option) is not None:
            raise ConfigError(f"--{option}: only a U-Net has pixels to tell objects from; leave it out for a detector.")


def _parse_instances(text: str) -> InstanceSettings:
    """Settings out of ``key=value`` between commas."""
    from pydantic import ValidationError

    from detkd.evaluation.instances import InstanceSettings
    from detkd.trees import parse_yaml

    pairs = [part.partition("=") for part in text.split(",")]
    if not all(separator for _, separator, _ in pairs):
        raise ConfigError(f"--instances: expected key=value between commas, but got {text!r}.")
    try:
        return InstanceSettings.model_validate({key.strip(): parse_yaml(value) for key, _, value in pairs})
    except ValidationError as error:
        faults = [f"--instances: {'.'.join(map(str, fault['loc']))}: {fault['msg']}." for fault in error.errors()]
        raise ConfigError("\n".join(faults)) from error
    except ValueError as error:
        raise ConfigError(f"--instances: expected YAML values, but got {text!r}.") from error


def _table(metrics: Mapping[str, Any]) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table("metric", "value")
    for name, value in metrics.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    for name, value in metrics["per_class"].items():
        for metric, number in (value if isinstance(value, dict) else {"AP": value}).items():
            table.add_row(escape(f"{metric} {name}"), f"{number:.4f}")
    for name, value in metrics.get("instances", {}).items():
        table.add_row(f"instances {name}", str(value))
    return table

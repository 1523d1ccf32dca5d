"""Evaluate a detector of any family with COCO metrics.

python tools/evaluate.py --weights runs/NAME/student.pt --data DATA.yaml --split test [--imgsz N] [--json OUT]
python tools/evaluate.py --weights runs/NAME/student.safetensors --data DATA.yaml [--iou-type segm]
python tools/evaluate.py --detections results.json --ground-truth test.json [--iou-type segm]

The kind of file says the family: an ultralytics checkpoint (.pt), or detkd's of a torchvision detector (.safetensors). The
data set may have annotations of YOLO, COCO or Pascal VOC. Masks (segm) are those of a Mask R-CNN.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from detkd import __version__
from detkd.cli import run
from detkd.errors import ConfigError
from detkd.evaluation.coco import METRICS, CocoMetrics, evaluate_coco
from detkd.files import write_json

SMALLEST = 32  # pixels: the stride of a YOLO's coarsest level


def main() -> None:
    """Parse the command line, evaluate, and show the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a run's student.pt or student.safetensors")
    parser.add_argument("--data", type=Path, help="data.yaml")
    parser.add_argument("--split", default="test", help="(default: test)")
    parser.add_argument("--imgsz", type=int, help="side of the network's input in pixels (default: as it was trained)")
    parser.add_argument("--detections", type=Path, help="COCO results of any detector, instead of --weights and --data")
    parser.add_argument("--ground-truth", type=Path, help="COCO ground truth for --detections")
    parser.add_argument("--iou-type", choices=("bbox", "segm"), default="bbox", help="boxes or masks (default: bbox)")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    arguments = parser.parse_args()
    metrics = _evaluate(arguments)
    _show(metrics)
    if arguments.json is not None:
        source = {key: str(value) for key, value in vars(arguments).items() if value is not None and key != "json"}
        write_json(arguments.json, {**metrics.as_dict(), **source, "detkd": __version__})


def _evaluate(arguments: argparse.Namespace) -> CocoMetrics:
    if arguments.detections and arguments.ground_truth:
        return evaluate_coco(arguments.ground_truth, arguments.detections, arguments.iou_type)
    if not (arguments.weights and arguments.data):
        raise ConfigError("Expected --weights and --data, or --detections and --ground-truth.")
    if arguments.imgsz is not None and arguments.imgsz < SMALLEST:
        raise ConfigError(f"--imgsz: expected {SMALLEST} pixels or more, but got {arguments.imgsz}.")
    from detkd.data.detection import DetectionDataset, check_dataset
    from detkd.engines.families import FAMILIES
    from detkd.model_config import ModelConfig

    dataset = DetectionDataset.load(arguments.data)
    check_dataset(dataset, (arguments.split,))
    truth = dataset.coco(arguments.split)
    family = FAMILIES[ModelConfig(weights=arguments.weights).family]
    model = family.load(arguments.weights, arguments.imgsz)
    imgsz = family.imgsz(model) if arguments.imgsz is None else arguments.imgsz
    found = family.predictor(model)(dataset.images(arguments.split), truth, imgsz=imgsz)
    return evaluate_coco(truth, found, arguments.iou_type)


def _show(metrics: CocoMetrics) -> None:
    table = Table("metric", "value")
    for name in METRICS:
        table.add_row(name, f"{metrics[name]:.4f}")
    for name, value in metrics.per_class.items():
        table.add_row(f"AP {name}", f"{value:.4f}")
    Console().print(table)


if __name__ == "__main__":
    run(main)

"""Evaluate a detector with COCO metrics.

python tools/evaluate.py --weights runs/student/student.pt --data DATA.yaml --split test [--imgsz N] [--json OUT]
python tools/evaluate.py --detections results.json --ground-truth test.json [--iou-type segm]
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


def main() -> None:
    """Parse the command line, evaluate, and show the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="ultralytics checkpoint")
    parser.add_argument("--data", type=Path, help="data.yaml")
    parser.add_argument("--split", default="test")
    parser.add_argument("--imgsz", type=int, default=640, help="side of the network's input in pixels")
    parser.add_argument("--detections", type=Path, help="COCO results of any detector, instead of --weights and --data")
    parser.add_argument("--ground-truth", type=Path, help="COCO ground truth for --detections")
    parser.add_argument("--iou-type", choices=("bbox", "segm"), default="bbox")
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
    from detkd.adapters.ultralytics import load_yolo
    from detkd.data.detection import DetectionDataset, check_dataset
    from detkd.evaluation.ultralytics import predict_coco

    dataset = DetectionDataset.load(arguments.data)
    check_dataset(dataset, (arguments.split,))
    truth = dataset.coco(arguments.split)
    model = load_yolo(arguments.weights)
    return evaluate_coco(truth, predict_coco(model, dataset.images(arguments.split), truth, imgsz=arguments.imgsz))


def _show(metrics: CocoMetrics) -> None:
    table = Table("metric", "value")
    for name in METRICS:
        table.add_row(name, f"{metrics[name]:.4f}")
    for name, value in metrics.per_class.items():
        table.add_row(f"AP {name}", f"{value:.4f}")
    Console().print(table)


if __name__ == "__main__":
    run(main)

"""What `make demo` runs: draw a data set, train a teacher, then a student without and with its help, and compare.

    python tools/demo.py

What an earlier call has finished is reused, and a training that was cut short is resumed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detkd.cli import run
from detkd.config import load_config

if TYPE_CHECKING:
    from detkd.config import RunConfig
    from detkd.data.detection import DetectionDataset

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "demo"
COUNTS = {"train": 400, "val": 60, "test": 150}


def main() -> None:
    """Run the four steps and print the comparison."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    runs = {
        "teacher": load_config(CONFIGS / "teacher.yaml"),
        "student alone": load_config(CONFIGS / "student.yaml", ["distill=null", "name=demo-student-alone"]),
        "student distilled": load_config(CONFIGS / "student.yaml"),
    }

    from detkd.adapters.ultralytics import load_yolo
    from detkd.data.detection import DetectionDataset
    from detkd.data.synthetic import write_synthetic
    from detkd.engines.detection import METRICS
    from detkd.evaluation.cost import measure_cost
    from detkd.report.console import print_table, results_table

    config = runs["teacher"]
    write_synthetic(config.data.parent, COUNTS, size=config.train.imgsz)
    folders = {title: _finish(run) for title, run in runs.items()}
    models = {title: load_yolo(folder / "student.pt") for title, folder in folders.items()}
    # Measured anew side by side: times of separate runs do not compare.
    costs = measure_cost({title: (model.model.float(), config.train.imgsz) for title, model in models.items()})
    rows = []
    for title, folder in folders.items():
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        rows.append((title, {**results["student"], **asdict(costs[title])}))
    picture = config.output / "demo.png"
    _draw(DetectionDataset.load(config.data), models, config.train.imgsz, picture)
    print_table(results_table(rows, "test", METRICS))
    print(f"side by side: {picture}")
    for title, folder in folders.items():
        print(f"{title}: {folder}/ (student.pt, results.json, training.png, detections.png)")


def _finish(config: RunConfig) -> Path:
    from detkd.engines.run import run_config
    from detkd.engines.ultralytics import LAST_CHECKPOINT

    folder = config.output / config.name
    if (folder / "results.json").exists():
        print(f"{folder}: finished before, reused (delete it to train anew)")
        return folder
    return run_config(config, resume=(folder / LAST_CHECKPOINT).exists())


def _draw(dataset: DetectionDataset, models: dict[str, Any], imgsz: int, path: Path) -> None:
    """Ground truth and the three models' detections on the first pictures of the test split."""
    from detkd.engines.detection import ROWS
    from detkd.evaluation.ultralytics import predict_coco
    from detkd.report.panels import gallery_panels
    from detkd.report.pictures import draw_detections

    truth = dataset.coco("test")
    images = dataset.images("test")[:ROWS]
    columns = {"ground truth": truth["annotations"]}
    for title, model in models.items():
        columns[title] = predict_coco(model, images, truth, imgsz=imgsz)
    gallery_panels(draw_detections(images, columns, truth), path)


if __name__ == "__main__":
    run(main)

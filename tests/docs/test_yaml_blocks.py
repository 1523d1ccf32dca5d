"""Every YAML block of the docs is read by what reads it in earnest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import yaml

from detkd.config import load_config, parse_config
from detkd.data.detection import DetectionDataset
from tests.docs.commands import check_trainer
from tests.docs.pages import ROOT, Block, blocks, name

if TYPE_CHECKING:
    from pathlib import Path

# A student whose family reads the sections of a page's blocks; a YOLO elsewhere.
STUDENTS = {"docs/lightning.md": "fasterrcnn_mobilenet_v3_small_fpn", "docs/segmentation.md": "unet"}
RECIPE_BASE = ROOT / "configs/yolo/yolov5n-femto_from_yolov5n.yaml"


@pytest.mark.parametrize("block", blocks("yaml"), ids=name)
def test_it_is_a_configuration_recipes_or_a_data_set(block: Block, tmp_path: Path) -> None:
    tree: dict[str, Any] = yaml.safe_load(block.text)
    if "names" in tree:
        (tmp_path / "data.yaml").write_text(block.text)
        assert DetectionDataset.load(tmp_path / "data.yaml").splits
    elif all(isinstance(value, list) for value in tree.values()):
        for changes in tree.values():
            load_config(RECIPE_BASE, ["data=D", *changes])
    else:
        student = {"model": STUDENTS.get(block.page, "yolov5n.yaml")}
        check_trainer(parse_config({"name": "run", "data": "data.yaml", "student": student, "distill": None, **tree}))

"""Pictures of what a classifier learned."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

from detkd.evaluation.classification import reliability
from detkd.report.classification import attention_panels, reliability_plot, similarity_plot


def test_all_pictures_can_be_drawn(tmp_path: Path) -> None:
    curve = reliability(torch.randn(50, 3), torch.randint(0, 3, (50,)))
    reliability_plot({"teacher": curve, "student": curve}, tmp_path / "reliability.png")
    similarity_plot(torch.rand(2, 4), tmp_path / "similarity.png")
    maps = {"teacher": [torch.rand(3, 8, 8), torch.rand(3, 4, 4)], "student": [torch.rand(3, 8, 8)]}
    attention_panels(torch.rand(3, 3, 16, 16), maps, tmp_path / "attention.png")
    for name in ("reliability", "similarity", "attention"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert len(set(picture.convert("L").tobytes())) > 2

"""The section of a run's configuration that only segmentation has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SegmentationSettings(BaseModel):
    """How pictures reach the network, and how objects are told from its pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pictures: Literal["fit", "tiles"] = Field(
        "fit",
        description="fit scales a picture to `imgsz`; tiles keeps its scale: it crops in training, and joins tiles else",
    )
    boundary: int = Field(2, ge=1, description="pixels on either side of an object's end that are its boundary")

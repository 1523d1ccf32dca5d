"""The section of a run's configuration that only segmentation has."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from detkd.evaluation.instances import InstanceSettings  # noqa: TC001 - pydantic reads annotations at run time


class SegmentationSettings(BaseModel):
    """How pictures reach the network, and how objects are told from its pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pictures: Literal["fit", "tiles"] = Field(
        "fit",
        description="fit scales a picture to `imgsz`; tiles keeps its scale: it crops in training, and joins tiles else",
    )
    boundary: int = Field(2, ge=1, description="pixels on either side of an object's end that are its boundary")
    instances: InstanceSettings | None = Field(
        None, description="how objects are told from what a network says of pixels; null chooses it on the split `val`"
    )
    labelled: float = Field(
        1.0, gt=0, le=1, description="share of the training pictures whose labels are used; a teacher speaks of all of them"
    )

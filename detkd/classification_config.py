"""The section of a run's configuration that only classification has."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads annotations at run time

from pydantic import BaseModel, ConfigDict, Field


class ClassificationSettings(BaseModel):
    """Which samples are learnt from, and how they reach the network."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    subset: int | None = Field(None, ge=1, description="training samples of a class, the same in every run; null takes all")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of a class's training pictures that become the split `val`, where there is none"
    )
    shift: int = Field(4, ge=0, description="most pixels that a training picture is moved by; for pictures")
    flip: bool = Field(True, description="whether every other training picture is mirrored; for pictures")
    vocabulary: int = Field(8000, ge=64, description="most tokens of the tokenizer that is trained on the sentences")
    tokenizer: Path | None = Field(
        None, description="checkpoint, transformers' folder or tokenizer.json to read sentences by instead"
    )

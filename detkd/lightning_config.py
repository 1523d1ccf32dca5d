"""The sections of a run's configuration that the Lightning engine reads; ultralytics' trainer has its own settings."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# Flips, other scales and places, other light: what suits most pictures. Boxes keep their meaning under each of them.
DEFAULT_AUGMENT: tuple[dict[str, dict[str, Any]], ...] = (
    {"HorizontalFlip": {"p": 0.5}},
    {
        "Affine": {
            "scale": [0.5, 1.5],
            "translate_percent": [-0.1, 0.1],
            "keep_ratio": True,
            "fill": 114,
            "p": 1.0,
        }
    },
    {"ColorJitter": {"brightness": 0.4, "contrast": 0.2, "saturation": 0.5, "hue": 0.02, "p": 0.8}},
)


class OptimConfig(BaseModel):
    """The optimizer, and how long it runs."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: Literal["adamw", "sgd"] = Field("adamw", description="the optimizer's kind")
    lr: float = Field(5e-4, gt=0, description="learning rate after the warm-up")
    weight_decay: float = Field(0.01, ge=0, description="of weights; norms and biases have none")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; beta 1 of adamw")
    warmup_epochs: float = Field(1.0, ge=0, description="over which the learning rate rises linearly from 0")
    schedule: Literal["constant", "cosine", "step"] = Field(
        "cosine", description="cosine falls to a hundredth; step falls to a tenth at 2/3 and at 8/9 of the run"
    )
    clip: float | None = Field(10.0, gt=0, description="largest norm of the student's gradient")
    ema: float | None = Field(None, gt=0, lt=1, description="decay of a moving average of the weights, which is kept then")
    judge_every: int = Field(1, ge=1, description="epochs from one validation to the next; the last epoch always has one")
    patience: int | None = Field(None, ge=1, description="validations without a better one before training stops")


class LoadingConfig(BaseModel):
    """How an epoch's pictures are drawn and composed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    sampling: Literal["plain", "repeat_factor"] = Field(
        "plain", description="repeat_factor shows pictures of rare classes more often (Gupta et al. 2019)"
    )
    threshold: float = Field(
        0.1, gt=0, le=1, description="share of the pictures below which a class is rare, for repeat_factor"
    )
    workers: int | None = Field(
        None, ge=0, description="processes that compose pictures; null takes up to 8 beside a GPU, none beside a busy CPU"
    )

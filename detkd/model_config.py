"""The sections of a run's configuration that name a model, and the families that models are of."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads annotations at run time
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from detkd.teachers.live import PrecisionName  # noqa: TC001
from detkd.weights import saved_name

FamilyName = Literal["yolo", "torchvision", "unet", "classifier", "text"]
TWO_STAGE = ("fasterrcnn_", "maskrcnn_")
TORCHVISION = (*TWO_STAGE, "retinanet_", "fcos_", "ssdlite320_")  # how its models' names begin
UNET: Literal["unet"] = "unet"  # by itself, or unet_ENCODER
CLASSIFIERS = ("resnet18", "cnn", "mobilenet_v3_small")  # of pictures
TEXTS = ("bert", "transformer", "lstm")  # classifiers of sentences
SCALES = (0.5, 1.0, 2.0, 4.0)
OF_FAMILIES: dict[str, tuple[FamilyName, ...]] = {
    "proposals": ("torchvision",),
    "boundary": (UNET,),
    "class_weights": (UNET,),
    "smoothing": ("classifier", "text"),
}  # keys of a model that not every family has
CHECKPOINTS = (".pt", ".safetensors")
BUILT = ("width", "depth", "boundary", "smoothing")  # keys of what a model is built as, which a checkpoint of it says


class ProposalsConfig(BaseModel):
    """How many regions a two-stage detector looks at; fewer are faster."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    pre_nms: int = Field(gt=0, description="best anchors of a level that become proposals")
    post_nms: int = Field(gt=0, description="proposals of an image that are left")
    sampled: int = Field(gt=0, description="of them, and of the labels, those that the second stage trains on")


class ModelConfig(BaseModel):
    """A model: its architecture and, or, its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str | None = Field(
        None,
        description="ultralytics yaml, e.g. yolov5n.yaml, name of a torchvision detector or classifier, unet, unet_ENCODER",
    )
    weights: Path | None = Field(None, description="checkpoint, or plain state dict that fills what fits")
    width: float | None = Field(None, gt=0, le=4, description="replaces the architecture's width multiple")
    depth: float | None = Field(None, gt=0, le=4, description="replaces the yaml's depth multiple")
    proposals: ProposalsConfig | None = Field(None, description="regions of a two-stage detector")
    boundary: bool | None = Field(None, description="whether a U-Net also says where objects end; null does")
    class_weights: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        None, description="weights of `background` and of classes in a U-Net's cross-entropy; 1 of those left out"
    )
    smoothing: float | None = Field(
        None, ge=0, lt=1, description="share of a label that a classifier spreads over all classes in training"
    )

    @model_validator(mode="after")
    def _of_its_family(self) -> ModelConfig:
        foreign = [
            f"`{key}`, which is for {' and '.join(families)} alone"
            for key, families in OF_FAMILIES.items()
            if getattr(self, key) is not None and self.family not in families
        ]
        if foreign:
            raise ValueError(f"expected a model of family {self.family} to be given no {', and no '.join(foreign)}")
        return self

    @model_validator(mode="after")
    def _of_a_checkpoint(self) -> ModelConfig:
        alone = self.model is None or self.model.endswith(CHECKPOINTS)
        given = [f"`{key}`" for key in BUILT if alone and getattr(self, key) is not None]
        if given:
            raise ValueError(
                f"expected no {', '.join(given)} beside a checkpoint alone, which was built with its own; remove it, or "
                "name the `model` that the weights fill"
            )
        return self

    @property
    def architecture(self) -> str:
        """Name of the architecture: the one given, or that of a checkpoint which says so; empty where neither does."""
        if self.model is not None:
            return self.model
        return (saved_name(self.weights) or "") if self.weights is not None and self._is_safetensors else ""

    @property
    def family(self) -> FamilyName:
        """The family that the model is of, by the name of its architecture, or by the kind of its checkpoint."""
        name = self.architecture
        if name in CLASSIFIERS:
            return "classifier"
        if name in TEXTS:
            return "text"
        if name == UNET or name.startswith(f"{UNET}_"):
            return "unet"
        return "torchvision" if name.startswith(TORCHVISION) or (not name and self._is_safetensors) else "yolo"

    @property
    def _is_safetensors(self) -> bool:
        return self.weights is not None and self.weights.suffix == ".safetensors"


class TeacherConfig(ModelConfig):
    """A teacher: a model, and how the student meets it."""

    scale: float = Field(1.0, description="side of the teacher's input as a multiple of the student's")
    classes: dict[str, str] | None = Field(
        None,
        description="teacher's class for a student's class whose name differs; classes that the teacher lacks are left out",
    )
    precision: PrecisionName | None = Field(None, description="type that the teacher computes in; null follows the student")
    share: float = Field(1.0, gt=0, description="weight against other teachers, where `ensemble` is mean")
    cache: Path | None = Field(None, description="folder made by detkd cache-teacher, to read its outputs from")
    views: int = Field(8, ge=1, description="augmented pictures of each image in a cache")
    anchors: int = Field(512, ge=1, description="anchors of each picture in a cache, those with the best scores")

    compile: bool = Field(
        False, description="whether torch.compile makes it faster; not for torchvision's detectors, nor for sentences"
    )
    prune: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of channels that are cut away when it is loaded; of U-Nets and classifiers of pictures",
    )

    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of an average of the student's own weights that teaches it, instead of a model"
    )
    mirrored: bool = Field(False, description="whether it sees pictures mirrored, for `consistency`; of classifiers alone")

    @model_validator(mode="after")
    def _average(self) -> TeacherConfig:
        given = [key for key in ("model", "weights", "cache", "prune") if getattr(self, key) is not None]
        if self.ema is not None and (given or self.scale != 1):
            raise ValueError(f"expected no {', '.join(given or ['scale'])} beside `ema`: the student itself is averaged")
        return self

    @field_validator("scale")
    @classmethod
    def _power_of_two(cls, scale: float) -> float:
        if scale not in SCALES:  # of any other, no two strides would meet
            raise ValueError(f"expected one of {SCALES}")
        return scale

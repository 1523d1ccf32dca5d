"""Typed, strict configuration of a training run: YAML plus ``key=value``.

Every section forbids unknown keys, and all faults are reported at once, one line each. What a loss may be told is read from
the signature of its module, so that its hyperparameters and their defaults stand in one place.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from detkd.balance import BalanceName  # noqa: TC001 - pydantic reads annotations at run time
from detkd.classification_config import ClassificationSettings
from detkd.errors import ConfigError, one_line, shorten
from detkd.lightning_config import DEFAULT_AUGMENT, LoadingConfig, OptimConfig
from detkd.losses import LOSSES
from detkd.model_config import TORCHVISION, TWO_STAGE, FamilyName, ModelConfig, TeacherConfig
from detkd.schedules import Schedule
from detkd.segmentation_config import SegmentationSettings
from detkd.shipped import find_configuration
from detkd.teachers.ensemble import EnsembleName  # noqa: TC001
from detkd.terms import Term, teaches_itself
from detkd.trees import parse_yaml

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOT_AHEAD = "ultralytics' trainer sets no training samples apart to look ahead on"
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


_Told = TypeVar("_Told")
CLASSIFYING = ("classifier", "text")  # families whose students classify
Task = Literal["detect", "segment", "classify"]
LoggerName = Literal["tensorboard", "wandb", "mlflow"]
TERM_KEYS = ("weight", "schedule")  # of every term, beside its loss's own arguments


def default_terms(student: ModelConfig) -> dict[str, Any]:
    """The recommended terms for a student.

    For YOLO: what else was tried beside it gained less, see docs/results.md.
    """
    if student.family in CLASSIFYING:
        return {"soft_kl": {}}
    if student.family == "unet":
        return {"pixel_kl": {}, "pixel_cwd": {}}
    if student.architecture.startswith("ssdlite"):  # whose classes exclude each other
        return {"soft_kl": {}}
    if student.architecture.startswith(TWO_STAGE):
        return {"pkd": {}, "dkd": {"beta": 0.25, "temperature": 1.0}, "bounded_box": {}}
    return {"bckd": {}}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DistillConfig(_Strict):
    """The teachers and the losses."""

    teacher: TeacherConfig | None = Field(None, description="the teacher, where there is one")
    teachers: tuple[TeacherConfig, ...] | None = Field(
        None, min_length=1, description="the teachers, where there are several"
    )
    ensemble: EnsembleName = Field("mean", description="how several teachers are weighed")
    terms: dict[str, Any] = Field(
        default_factory=lambda: default_terms(ModelConfig.model_validate({})),
        min_length=1,
        description="loss name to its weight, schedule and arguments; null leaves the loss out",
    )
    balance: BalanceName = Field("gradient_ratio", description="how weights are held against the task loss")
    held_out: float = Field(
        0.05, gt=0, le=0.5, description="share of the training samples that the balance `meta` sets apart"
    )
    inherit: bool = Field(False, description="whether the student starts from a selection of the first teacher's weights")

    @model_validator(mode="after")
    def _teachers(self) -> DistillConfig:
        taught = any(not teaches_itself(name) for name in self.terms)
        if (self.teacher is not None and self.teachers is not None) or (taught and not self.all_teachers):
            raise ValueError("expected either `teacher` or `teachers`")
        if self.all_teachers and not taught:
            raise ValueError(
                f"expected no `teacher` beside {list(self.terms)}, by which a student teaches itself; give null"
            )
        if self.inherit and not self.all_teachers:
            raise ValueError("expected a `teacher` to `inherit` from")
        if self.ensemble == "ca_mkd" and len(self.all_teachers) < 2:
            raise ValueError("expected two `teachers` or more where `ensemble` is ca_mkd")
        if len({teacher.views for teacher in self.all_teachers if teacher.cache is not None}) > 1:
            raise ValueError("expected the same `views` of all `teachers` that have a `cache`")
        return self

    @property
    def all_teachers(self) -> tuple[TeacherConfig, ...]:
        """The teacher, or the teachers."""
        return self.teachers or ((self.teacher,) if self.teacher is not None else ())

    def of_own_models(self, told: Sequence[_Told]) -> list[_Told]:
        """Of what is told of each teacher, that of models of their own: an average of the student is none to catch up with.

        Args:
            told: Something of each of :attr:`all_teachers`, in their order.
        """
        averages = {index for index, spec in enumerate(self.all_teachers) if spec.ema is not None}
        return [one for index, one in enumerate(told) if index not in averages]

    @property
    def views(self) -> int | None:
        """Number of augmented pictures of each image where a teacher is cached; None where every epoch draws new ones."""
        return next((teacher.views for teacher in self.all_teachers if teacher.cache is not None), None)

    @field_validator("terms")
    @classmethod
    def _known_terms(cls, terms: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(set(terms) - set(LOSSES))
        if unknown:
            raise ValueError(f"expected loss names out of {sorted(LOSSES)}, but got {unknown}")
        kept = {name: given for name, given in terms.items() if given is not None}
        if not kept:
            raise ValueError("expected at least one loss that is not null; for none at all, give distill=null")
        return kept

    def losses(self) -> list[Term]:
        """The distillation terms, in the order of the configuration."""
        return [
            Term(
                name=name,
                weight=given["weight"],
                arguments={key: value for key, value in given.items() if key not in TERM_KEYS},
                schedule=Schedule(**given["schedule"]),
            )
            for name, given in self.terms.items()
        ]


class TrainConfig(_Strict):
    """The schedule, shared by every engine."""

    epochs: int = Field(100, ge=1, description="passes over the training pictures")
    imgsz: int = Field(
        640,
        ge=32,
        description="side of the square input in pixels, a multiple of the largest stride; of sentences the most tokens",
    )
    batch: int = Field(16, ge=1, description="samples of a step, of all processes together")
    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="of the student's start, the order of samples and their augmentation"
    )
    device: str = Field(
        "cpu", coerce_numbers_to_str=True, min_length=1, description="cpu, or numbers of GPUs such as 0 or 0,1"
    )


class RunConfig(_Strict):
    """One training run: what all tasks have in common.

    Attributes:
        task: What its students do, by the name of ``detkd.engines.tasks.TASKS``.
    """

    task: ClassVar[Task]

    name: Name = Field(description="folder of the run below `output`")
    output: Path = Field(Path("runs"), description="folder that runs are kept in")
    data: Path = Field(description="data.yaml of the data set; of a classifier the folder of its splits")
    student: ModelConfig = Field(description="the model that is trained; its family says which engine trains it")
    distill: DistillConfig | None = Field(description="the teachers and the losses; null trains the student alone")
    train: TrainConfig = Field(
        default_factory=lambda: TrainConfig.model_validate({}), description="the schedule that all engines share"
    )
    augment: tuple[dict[str, dict[str, Any] | None], ...] | None = Field(
        None,
        description="albumentations' transforms, each a name to its arguments, not for YOLO; null flips, scales, shifts "
        "and recolours pictures of detectors and U-Nets, and does nothing to those of classifiers",
    )
    loading: LoadingConfig | None = Field(None, description="how pictures are drawn and composed; not for YOLO")
    optim: OptimConfig | None = Field(None, description="the optimizer; not for YOLO")
    trainer: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of ultralytics' trainer, or of Lightning's, as they are"
    )
    evaluate: tuple[str, ...] = Field(("val", "test"), min_length=1, description="splits evaluated at the end")
    loggers: tuple[LoggerName, ...] = Field(
        (), description="services that are told of each epoch, where they are installed"
    )

    @property
    def family(self) -> FamilyName:
        """Whose the student is, and so which engine trains it."""
        return self.student.family


class DetectionConfig(RunConfig):
    """One detection run of ``detkd train-det``."""

    task: ClassVar[Task] = "detect"

    @model_validator(mode="after")
    def _engine(self) -> DetectionConfig:
        if self.family == "yolo" and self.distill is not None and self.distill.balance == "meta":
            raise ValueError(f"expected another `distill.balance` than meta for a YOLO student: {NOT_AHEAD}")
        foreign = [key for key in _LIGHTNING if getattr(self, key) is not None] if self.family == "yolo" else []
        if foreign:
            raise ValueError(
                f"expected {', '.join(f'`{key}`' for key in foreign)} to be left out for a YOLO student, which ultralytics "
                f"trains: its settings go into `trainer`; {self.student.model or self.student.weights} is YOLO's, as "
                f"torchvision's begin with {', '.join(TORCHVISION)}, or end with .safetensors"
            )
        return self


class SegmentationConfig(RunConfig):
    """One segmentation run of ``detkd train-seg``."""

    task: ClassVar[Task] = "segment"

    segment: SegmentationSettings = Field(
        default_factory=lambda: SegmentationSettings.model_validate({}), description="what only segmentation has"
    )


class ClassificationConfig(RunConfig):
    """One run of ``detkd train-cls``, on pictures or sentences."""

    task: ClassVar[Task] = "classify"

    classify: ClassificationSettings = Field(
        default_factory=lambda: ClassificationSettings.model_validate({}), description="what only classification has"
    )


# Sections that Lightning's engine alone reads, and what stands in a run's configuration where they are left out.
_LIGHTNING: dict[str, Any] = {
    "augment": DEFAULT_AUGMENT,
    "loading": LoadingConfig.model_validate({}),
    "optim": OptimConfig.model_validate({}),
}


_KINDS: dict[str, type[RunConfig]] = {
    "unet": SegmentationConfig,
    **dict.fromkeys(CLASSIFYING, ClassificationConfig),
}  # by the student's family; of all others, detection


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a configuration file and apply ``key=value`` overrides; the student's family says the kind of run.

    Args:
        path: A YAML file.
        overrides: ``a.b=value`` strings; values are YAML, so ``distill=null`` and ``trainer.lr0=0.01`` mean what they say.

    Raises:
        ConfigError: With one line for each fault.
    """
    tree = read_yaml(path)
    for override in overrides:
        _apply(tree, override)
    return parse_config(tree)


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """Validate a configuration tree; see :func:`load_config`."""
    distill = tree.get("distill")
    student = _student(tree)
    kind = _KINDS.get(student.family, DetectionConfig)
    resolved, faults = _resolve_terms(distill if isinstance(distill, dict) else {}, default_terms(student), ("distill",))
    config = _validate(kind, tree, faults)
    if config.family != "yolo":
        defaults = {**_LIGHTNING, "augment": ()} if config.family in CLASSIFYING else _LIGHTNING
        left_out = {key: default for key, default in defaults.items() if getattr(config, key) is None}
        config = config.model_copy(update=left_out)
    if config.distill is None:
        return config
    return config.model_copy(update={"distill": config.distill.model_copy(update={"terms": resolved})})


def _student(tree: Mapping[str, Any]) -> ModelConfig:
    """The student as far as its family can be told by it; what is faulty in it is reported with all other faults."""
    given = tree.get("student")
    named = {key: given.get(key) for key in ("model", "weights")} if isinstance(given, dict) else {}
    return ModelConfig.model_validate({key: value for key, value in named.items() if isinstance(value, str | Path)})


def parse_distillation(tree: Mapping[str, Any]) -> DistillConfig:
    """Validate the `distill` section alone; see :func:`load_config`."""
    resolved, faults = _resolve_terms(tree, default_terms(ModelConfig.model_validate({})), ())
    return _validate(DistillConfig, tree, faults).model_copy(update={"terms": resolved})


def dump_config(config: RunConfig) -> str:
    """Write the resolved configuration as YAML that :func:`load_config` reads back."""
    text: str = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    return text


_Model = TypeVar("_Model", bound=BaseModel)


def _validate(model: type[_Model], tree: Mapping[str, Any], faults: Sequence[str]) -> _Model:
    """Validate a tree, and raise its faults together with those already found."""
    found = list(faults)
    try:
        valid = model.model_validate(tree)
    except ValidationError as error:
        found = _describe(error, ()) + found
    if found:
        raise ConfigError("\n".join(found))
    return valid


def _resolve_terms(
    distill: Mapping[str, Any], default: Mapping[str, Any], prefix: tuple[str, ...]
) -> tuple[dict[str, Any], list[str]]:
    """Fill every term's arguments with the defaults of its loss module, and collect what is wrong with them."""
    given = distill.get("terms")
    if given is None:
        given = default
    resolved: dict[str, Any] = {}
    faults: list[str] = []
    for name, arguments in given.items() if isinstance(given, dict) else ():
        if name not in LOSSES or arguments is None:
            continue
        try:
            resolved[name] = _arguments_model(name).model_validate(arguments).model_dump()
        except ValidationError as error:
            faults += _describe(error, (*prefix, "terms", name))
    return resolved, faults


_MODELS_OWN = ("channels", "classes", "embedding")  # parameters of losses that the models decide


def _arguments_model(name: str) -> type[BaseModel]:
    parameters = inspect.signature(LOSSES[name].__init__, eval_str=True).parameters
    fields: dict[str, Any] = {
        key: (parameter.annotation, parameter.default)
        for key, parameter in parameters.items()
        if key not in {"self", *_MODELS_OWN} and parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    }
    fields["weight"] = (Annotated[float, Field(ge=0)] | None, None)
    fields["schedule"] = (Schedule, Schedule())
    return create_model(f"{name}_arguments", __base__=_Strict, **fields)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: If the file is missing, unreadable or no mapping.
    """
    path = find_configuration(path)
    try:
        tree = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"Expected a configuration file, but there is none at {path}.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"Expected {path} to be readable YAML, but: {one_line(error)}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"Expected {path} to hold a mapping of keys, but it holds {type(tree).__name__}.")
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.split(".")
    if not separator or not all(parts):
        raise ConfigError(f"Expected an override of the form key.subkey=value, but got {shorten(override)}.")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise ConfigError(f"{key}: expected a YAML value, but got {shorten(text)}: {one_line(error)}") from error
    node = tree
    for part in parts[:-1]:
        child = node.get(part)
        if child is None:
            child = node[part] = {}
        if not isinstance(child, dict):
            raise ConfigError(f"{key}: expected `{part}` to be a section, but it is {shorten(child)}.")
        # A copy: an alias of YAML stands for the same section in another place, which is not meant.
        node[part] = node = dict(child)
    node[parts[-1]] = value


def _describe(error: ValidationError, prefix: tuple[str, ...]) -> list[str]:
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in (*prefix, *fault["loc"])) or "configuration"
        if fault["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
            lines.append(f"{key}: unknown key; got {shorten(fault['input'])}. Check its spelling and its section.")
        elif fault["type"] == "missing":
            lines.append(f"{key}: required, but missing.")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            message = message[0].lower() + message[1:]
            # A fault between keys of a section is not told with the whole section.
            got = (
                ""
                if isinstance(fault["input"], dict) and fault["type"] == "value_error"
                else f"; got {shorten(fault['input'])}"
            )
            lines.append(f"{key}: {message.removesuffix('.')}{got}.")
    return lines

"""What reports read from the folders of runs and comparisons, checked where it is read.

The files may be cut off, edited by hand, or of something else altogether. Keys that no report reads may be anything, and
those that runs of earlier versions lack have defaults.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from detkd.errors import DataError, one_line, shorten
from detkd.trees import parse_json

if TYPE_CHECKING:
    from pathlib import Path

RESULTS, COMPARISON = "results.json", "comparison.json"
LONGEST = 200  # bytes of a recipe's name, by which folders are called
LARGEST = 1e30  # beyond it, the arithmetic of a plot's scale overflows
DEFAULT_METRICS = ("AP", "AP50", "AP75")  # of comparisons from before these were named

Number = Annotated[float, Field(ge=-LARGEST, le=LARGEST)]
Interval = Annotated[list[Number | None], Field(min_length=2, max_length=2)]
Plain = str | Number | bool | None
PictureName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+\.(webp|png)$")]


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Metrics(_Record):
    """Of a model on a split; whatever else there is are metrics by their names."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number | None]

    intervals: dict[str, Interval | None] = {}
    per_class: dict[str, Number | dict[str, Number | None] | None] = {}
    instances: dict[str, Any] | None = None


class _Model(_Record):
    parameters: Number
    gflops: Number
    cpu_ms: Number
    metrics: dict[str, _Metrics] = Field(min_length=1)


class _Data(_Record):
    images: dict[str, int]


class Results(_Record):
    """results.json of a run."""

    task: Literal["detect", "segment", "classify"]
    family: str
    name: str
    seed: int
    epochs: int
    train_seconds: Number
    data: _Data
    student: _Model
    teachers: list[_Model]
    history: list[dict[str, Number | None]]
    distill_weights: list[dict[str, Number | None]]
    command: list[str] = Field(min_length=1)
    versions: dict[str, str | None]
    host: dict[str, Plain]


class _Difference(_Record):
    mean: Number | None
    low: Number | None
    high: Number | None

    @model_validator(mode="after")
    def _both_ends(self) -> _Difference:
        if (self.low is None) != (self.high is None):
            raise ValueError("of `low` and `high` one alone is known")
        return self


class _Recipe(_Record):
    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any]

    difference: dict[str, _Difference] = {}
    gap_closed: Number | None = None
    seconds_per_epoch: Number
    peak_memory_mib: Number


class Comparison(_Record):
    """comparison.json of a comparison."""

    split: str
    metrics: list[str] = Field(list(DEFAULT_METRICS), min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**32)]] = Field(min_length=1)
    baseline: str
    teacher: dict[str, Number | None] | None
    recipes: dict[str, _Recipe]
    command: list[str] = Field(min_length=1)

    @model_validator(mode="after")
    def _complete(self) -> Comparison:
        """Every recipe has each metric on each seed, and all but the baseline what they gained."""
        if self.baseline not in self.recipes:
            raise ValueError(f"`recipes` lacks the baseline {shorten(self.baseline)}")
        if any(len(name.encode()) > LONGEST for name in self.recipes):
            raise ValueError(f"`recipes` has a name of more than {LONGEST} bytes")
        for metric in self.metrics:
            if self.teacher and metric not in self.teacher:
                raise ValueError(f"`teacher` has no {metric}")
            for name, recipe in self.recipes.items():
                values = (recipe.__pydantic_extra__ or {}).get(metric)
                if not _is_column(values, len(self.seeds)):
                    raise ValueError(f"`recipes.{name}.{metric}` is no list of one number for each seed")
                if name != self.baseline and metric not in recipe.difference:
                    raise ValueError(f"`recipes.{name}.difference` has no {metric}")
        return self


class _Precision(_Record):
    by_overlap: dict[str, Annotated[list[Number], Field(min_length=2)]]
    by_class: dict[str, Annotated[list[Number], Field(min_length=2)]]


class _Reliability(_Record):
    edges: list[Number]
    counts: list[int]
    accuracy: list[Number]
    ECE: Number


class Curves(_Record):
    """curves.json of a run."""

    precision_recall: dict[str, _Precision] = {}
    reliability: dict[str, _Reliability] = {}
    per_class: dict[str, dict[str, Number | None]] = {}
    similarity: list[Annotated[list[Number], Field(min_length=1)]] | None = None


class _Looks(_Record):
    level: str
    views: dict[str, PictureName] = Field(min_length=1)


class _Picture(_Record):
    title: str
    views: dict[str, PictureName]
    captions: dict[str, str]
    attention: list[_Looks]


class Pictures(_Record):
    """index.json of a run's pictures."""

    note: str
    legend: dict[str, str]
    pictures: list[_Picture]


_AnyRecord = TypeVar("_AnyRecord", bound=BaseModel)


def read_record(path: Path, kind: type[_AnyRecord], advice: str) -> dict[str, Any]:
    """Read a file that a run or a comparison has left.

    Args:
        path: The file.
        kind: What it must hold.
        advice: What to do where it does not, one sentence.

    Returns:
        All that it holds.

    Raises:
        DataError: If it can't be read or holds something else.
    """
    try:
        tree: dict[str, Any] = parse_json(path.read_bytes())
        kind.model_validate(tree)
        json.dumps(tree, ensure_ascii=False).encode()  # JSON can escape halves of characters, which no page can hold
    except ValidationError as error:
        raise DataError(f"{path}: expected what detkd writes there, but {_first_fault(error)}. {advice}") from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: expected what detkd writes there, but: {one_line(error)}. {advice}") from error
    return tree


def read_results(folder: Path) -> dict[str, Any]:
    """What a finished run has found; see :func:`read_record`."""
    return read_record(folder / RESULTS, Results, "Make the run anew.")


def _first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, and how many more are."""
    fault, *others = error.errors(include_url=False, include_input=False)
    place = ".".join(map(str, fault["loc"]))
    reason = one_line(ValueError(fault["msg"])).removeprefix("Value error, ")
    said = f"`{place}` is missing" if fault["type"] == "missing" else f"`{place}`: {reason}" if place else reason
    return said + (f", and {len(others)} more faults" if others else "")


def _is_column(values: object, length: int) -> bool:
    return (
        isinstance(values, list)
        and len(values) == length
        and all(value is None or (isinstance(value, int | float) and abs(value) <= LARGEST) for value in values)
    )

"""The tasks of students: what differs between them in a run, in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from detkd.engines import classification, detection, segmentation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from detkd.config import RunConfig
    from detkd.engines.families import Family


class Judged(NamedTuple):
    """A model at the end of a run.

    Attributes:
        model: The model.
        family: Its family.
        classes: Its name of each class that it calls otherwise than the data set.
        imgsz: Side of its input in pixels: a teacher may see larger pictures than the student.
    """

    model: nn.Module
    family: Family
    classes: Mapping[str, str]
    imgsz: int


class Task(Protocol):
    """A task.

    Attributes:
        METRICS: Those that comparisons tell about, the first one first.
        PICTURES: Name of the file of side-by-side pictures.
        WATCHED: Key of the validation metric in a run's history.
    """

    METRICS: tuple[str, ...]
    PICTURES: str
    WATCHED: str

    def load_data(self, config: Any, splits: tuple[str, ...] | None = None) -> Any:
        """Read the data set of a run, and refuse what is missing or broken in the splits that it needs, or those named.

        Raises:
            DetkdError: If anything is wrong.
        """

    def evaluate(self, models: Mapping[str, Any], dataset: Any, config: Any, folder: Path) -> dict[str, dict[str, Any]]:
        """The metrics of each model on every split of ``config.evaluate``; pictures of the last split.

        Args:
            models: :class:`Judged` ones by their role, ``student`` among them.
            dataset: The run's data.
            config: The run.
            folder: Of the run.
        """


TASKS: dict[str, Task] = {"detect": detection, "segment": segmentation, "classify": classification}


def task_of(config: RunConfig) -> Task:
    """The task of a run."""
    return TASKS[config.task]

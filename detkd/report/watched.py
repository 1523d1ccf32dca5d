"""The validation metric that a run is watched by: what chooses its best epoch, and what progress and reports show."""

from __future__ import annotations

from typing import NamedTuple


class Watched(NamedTuple):
    """A metric.

    Attributes:
        key: In the rows of a run's history.
        name: What it is called.
    """

    key: str
    name: str


# By the task.
WATCHED_METRICS = {
    "detect": Watched("metrics/mAP50-95(B)", "AP"),  # as ultralytics names it
    "segment": Watched("metrics/AP", "mask AP"),
    "classify": Watched("metrics/accuracy", "accuracy"),
}

"""The student as its own teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from detkd.adapters.base import Adapter
    from detkd.types import Outputs


class Itself:
    """The :class:`detkd.teachers.base.Teacher` of terms by which one part of the student teaches another.

    It runs nothing: what it says is what the student has just computed.

    Args:
        student: Adapter of the student.
    """

    scale = 1.0
    classes: Mapping[str, str] | None = None

    def __init__(self, student: Adapter) -> None:
        self.adapter = student

    def attach(self) -> None:
        """Leave the hooks to whoever attaches the student."""

    def detach(self) -> None:
        """Leave the hooks to whoever detaches the student."""

    def run(self, images: Tensor, views: Sequence[Any] | None) -> Outputs:
        """Refuse: a second pass would not be the student's own.

        Raises:
            NotImplementedError: Always.
        """
        raise NotImplementedError("the student's own outputs are what it says")

"""What the distiller asks of a teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from detkd.adapters.base import Adapter
    from detkd.types import Outputs


class Teacher(Protocol):
    """A source of a model's outputs for the student's batch.

    Attributes:
        adapter: View of the teacher's model: its strides, channels and classes.
        scale: Side of the teacher's input as a multiple of the student's.
        classes: Teacher's class for a student's class, by name, where their names differ.
    """

    adapter: Adapter
    scale: float
    classes: Mapping[str, str] | None

    def attach(self) -> None:
        """Make ready to run, once nothing will copy the student any more."""

    def detach(self) -> None:
        """Remove what `attach` installed."""

    def run(self, images: Tensor, views: Sequence[Any] | None) -> Outputs:
        """Return the teacher's outputs in its own frame, without gradient.

        Args:
            images: The student's batch, [B, 3, H, W].
            views: For each image what identifies its augmented view, or None where the loader names none.
        """

"""What data sets of classified samples have in common, pictures or sentences."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

Part = TypeVar("Part")


@dataclass(frozen=True)
class ClassSplits(Generic[Part]):
    """Base of a data set that is held in memory.

    Attributes:
        names: Names of the classes, in alphabetical order.
        parts: The samples of each split.
    """

    names: tuple[str, ...]
    parts: Mapping[str, Part]

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits."""
        return tuple(self.parts)

    @property
    def watched(self) -> str:
        """The split that training is watched on."""
        return "val"

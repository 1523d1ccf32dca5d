"""What a torchvision detector was built as: enough to build it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

LARGEST = 2**16  # pixels of a side, or regions of an image
WIDEST = 4.0


@dataclass(frozen=True)
class Proposals:
    """How many regions a two-stage detector looks at in each image; most of its time on small images goes by them.

    Attributes:
        pre_nms: Of each level, those of the best objectness, before overlapping ones are dropped.
        post_nms: Of the image, after that; a test classifies them all.
        sampled: Of these and the labelled boxes, those that the second stage learns from; at most a quarter lie on objects.
    """

    pre_nms: int
    post_nms: int
    sampled: int


@dataclass(frozen=True)
class Architecture:
    """A torchvision detector without its weights.

    Attributes:
        name: One of ``detkd.models.torchvision.BUILDERS``.
        class_names: Its classes, without the background.
        imgsz: Side of its square input in pixels.
        width: Channels as a multiple of the published ones, None for a family that knows none.
        proposals: Its regions, None for a detector of one stage.
    """

    name: str
    class_names: tuple[str, ...]
    imgsz: int
    width: float | None = None
    proposals: Proposals | None = None

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Architecture:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: If it is no JSON.
            TypeError: If it is no architecture.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise TypeError(f"expected a mapping, got {type(fields).__name__}")
        proposals = fields.pop("proposals", None)
        names = tuple(fields.pop("class_names", ()))
        read = cls(**fields, class_names=names, proposals=None if proposals is None else Proposals(**proposals))
        read.check()
        return read

    def check(self) -> None:
        """Refuse values that nothing can be built with, as somebody else's file may hold them.

        Raises:
            TypeError: If there is one.
        """
        counts = [self.imgsz, *(asdict(self.proposals).values() if self.proposals is not None else ())]
        texts = [self.name, *self.class_names]
        width = 1.0 if self.width is None else self.width
        if (
            not all(isinstance(count, int) and 0 < count <= LARGEST for count in counts)
            or not all(isinstance(text, str) for text in texts)
            or not (isinstance(width, int | float) and 0 < width <= WIDEST)
        ):
            raise TypeError(f"expected names, counts up to {LARGEST} and a width up to {WIDEST}, got {self}")

"""What a U-Net was built as: enough to build it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import get_args

from detkd.models.architecture import LARGEST, WIDEST
from detkd.types import Mode


@dataclass(frozen=True)
class UNetArchitecture:
    """A U-Net without its weights.

    Attributes:
        name: ``unet``, or ``unet_`` and the name of an encoder of segmentation-models-pytorch.
        class_names: Its classes, without the background.
        imgsz: Side of its square input in pixels.
        boundary: Whether it also says where objects end.
        width: Channels as a multiple of the usual ones: of the whole U-Net, or of the decoder behind an encoder.
        pictures: Whether it was trained on pictures that fit its input, or on tiles of it.
    """

    name: str
    class_names: tuple[str, ...]
    imgsz: int
    boundary: bool = True
    width: float = 1.0
    pictures: Mode = "fit"

    @property
    def channels(self) -> int:
        """Channels of its logits."""
        classes = len(self.class_names)
        return (classes if classes == 1 else 1 + classes) + self.boundary

    def to_json(self) -> str:
        """Write it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> UNetArchitecture:
        """Read what :meth:`to_json` wrote, perhaps somebody else's.

        Raises:
            ValueError: If it is no JSON.
            TypeError: If it is no architecture that anything can be built with.
        """
        fields = json.loads(text)
        if not isinstance(fields, dict) or not isinstance(fields.get("class_names"), list):
            raise TypeError(f"expected a mapping with a list of class names, got {text[:200]!r}")
        read = cls(**{**fields, "class_names": tuple(fields["class_names"])})
        if (
            not all(isinstance(name, str) for name in (read.name, *read.class_names))
            or not 1 <= len(read.class_names) <= LARGEST
            or type(read.imgsz) is not int
            or not 0 < read.imgsz <= LARGEST
            or type(read.boundary) is not bool
            or type(read.width) not in {int, float}
            or not 0 < read.width <= WIDEST
            or read.pictures not in get_args(Mode)
        ):
            raise TypeError(
                f"expected names, a size up to {LARGEST}, a width up to {WIDEST} and pictures of {get_args(Mode)}, "
                f"got {text[:200]!r}"
            )
        return read

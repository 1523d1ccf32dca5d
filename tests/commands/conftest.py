"""The tiny data sets and teachers, for commands that train."""

from tests.engines.conftest import (  # noqa: F401 - fixtures
    checkpoint,
    data,
    discs,
    rcnn_teacher,
    teacher,
    unet_teacher,
)

"""The tiny data sets and teachers, for tools that train."""

from tests.engines.conftest import (  # noqa: F401 - fixtures
    checkpoint,
    data,
    discs,
    one_thread,
    rcnn_teacher,
    shapes,
    teacher,
    unet_teacher,
)

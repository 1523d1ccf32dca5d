"""The tiny data set and teachers, for tools that train."""

from tests.engines.conftest import checkpoint, data, rcnn_teacher, teacher  # noqa: F401 - fixtures

"""The tiny data set and teacher, for tools that train."""

from tests.engines.conftest import data, teacher  # noqa: F401 - fixtures

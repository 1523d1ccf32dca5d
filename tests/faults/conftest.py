"""The tiny data sets, for work that is killed or finds no room."""

from tests.engines.conftest import checkpoint, data, one_thread, teacher  # noqa: F401 - fixtures

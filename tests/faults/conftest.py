"""The tiny data sets, for work that is killed or finds no room."""

from tests.engines.conftest import data, one_thread  # noqa: F401 - fixtures

"""The tiny data set that the faulty ones are made of."""

from tests.engines.conftest import data  # noqa: F401 - a fixture

"""The tiny data sets and teachers, for what an attacker does to them."""

from tests.engines.conftest import checkpoint, data, teacher  # noqa: F401 - fixtures

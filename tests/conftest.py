"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.browser import browser  # noqa: F401 - a fixture

# The same examples on every run: a red test then means that the code has changed.
settings.register_profile("detkd", derandomize=True)
settings.load_profile("detkd")

ROOT = Path(__file__).resolve().parent.parent
LONG = {"csrc", "engines", "tools"}  # folders whose files take minutes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes come first: one that began last would run while all other processes have nothing to do."""
    items.sort(key=lambda item: LONG.isdisjoint(item.path.relative_to(ROOT).parts))


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; a test that needs it fails clearly where it is missing."""
    root = Path(os.environ.get("DETKD_DATA_ROOT", ROOT.parent / "shared" / "data"))
    assert root.is_dir(), f"real data expected at {root}; set DETKD_DATA_ROOT"
    return root

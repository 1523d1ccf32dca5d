"""The tiny data sets and teachers, and configurations of every family to examine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.engines.conftest import (  # noqa: F401 - fixtures
    checkpoint,
    data,
    discs,
    finding_yolo,
    one_thread_for_a_module,
    rcnn_teacher,
    resolved,
    teacher,
    unet_teacher,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from detkd.doctor.findings import Finding


def by_code(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The findings by what was looked at; of several of one kind, the last."""
    return {finding.check: finding for finding in findings}


@pytest.fixture
def nothing_written(tmp_path: Path) -> Any:
    """After the test the folder of runs is not there."""
    yield
    assert not (tmp_path / "runs").exists()

"""A sound configuration of each family passes, and nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from detkd.doctor.examination import examine
from detkd.doctor.findings import verdict
from tests.doctor.conftest import by_code
from tests.doctor.healthy import FAMILIES_BY_DATA, rcnn, yolo

SLOW = (yolo, rcnn)  # whose teachers take a while to learn anything
pytestmark = pytest.mark.usefixtures("one_thread_for_a_module", "nothing_written")


@pytest.mark.parametrize(
    "make",
    [pytest.param(make, marks=pytest.mark.slow if make in SLOW else ()) for make in FAMILIES_BY_DATA],
    ids=lambda make: make.__name__,
)
def test_a_sound_configuration_passes(make: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    config = make(request.getfixturevalue(FAMILIES_BY_DATA[make]), tmp_path / "teacher")
    config = config.model_copy(update={"output": tmp_path / "runs"})
    findings = examine(config, seconds=20)
    assert not [finding for finding in findings if finding.severity == "error"], findings
    found = by_code(findings)
    for check in ("extension", "memory", "steps", "hooks", "models"):
        assert found[check].severity == "ok", (check, findings)
    assert "teacher" in found or "teacher.unsure" in found
    assert {term for term in config.distill.terms if any(f"`{term}`" in one.detail for one in findings)} == set(
        config.distill.terms
    )
    assert verdict(findings).startswith(("Nothing stands", "It will run"))

"""The extension that is there, held down, refused, or missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from detkd.doctor.environment import check_extension
from detkd.ops._extension import cpu_capabilities

CODE = """
import json, sys
if len(sys.argv) > 1:
    sys.modules["detkd._C"] = None  # as where it was never built
from detkd.doctor.environment import check_extension
(found,) = check_extension()
print(json.dumps([found.severity, found.check, found.detail, found.fix]))
"""


def look(*arguments: str, cpu: str = "") -> list[str]:
    """What another process finds, since the kernels are chosen once."""
    environment = {key: value for key, value in os.environ.items() if key != "DETKD_CPU"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, **({"DETKD_CPU": cpu} if cpu else {})},
    )
    found: list[str] = json.loads(done.stdout)
    return found


def test_the_widest_instruction_set_is_as_it_should_be() -> None:
    severity, _, detail, _ = look()
    assert severity == "ok"
    assert cpu_capabilities()[0] in detail


def test_kernels_that_are_held_down_are_named() -> None:
    severity, check, detail, fix = look(cpu="portable")
    assert (severity, check) == ("warning", "extension.held_down")
    assert "portable runs" in detail
    assert fix == "Unset DETKD_CPU."


def test_an_instruction_set_that_is_none_is_named() -> None:
    severity, check, detail, _ = look(cpu="abacus")
    assert (severity, check) == ("error", "extension.refused")
    assert "abacus" in detail


def test_a_missing_extension_is_named_with_how_to_build_it() -> None:
    severity, check, _, fix = look("missing")
    assert (severity, check) == ("warning", "extension.missing")
    assert "pip install" in fix


def test_one_finding_is_made_in_this_process() -> None:
    assert len(check_extension()) == 1

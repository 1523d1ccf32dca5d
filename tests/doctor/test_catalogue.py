"""All kinds of findings."""

from __future__ import annotations

from pathlib import Path

from detkd.doctor.catalogue import KINDS


def test_codes_are_unique_and_each_kind_says_cause_and_fix() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)
    for kind in KINDS:
        assert kind.severity != "ok"
        assert kind.symptom[0].islower(), kind.code
        for text in (kind.cause, kind.fix):
            assert text[0].isupper(), kind.code
            assert "|" not in text, kind.code


def test_every_kind_is_planted_in_a_test(repository: Path) -> None:
    """By its code, in some test of this folder."""
    tests = "".join(path.read_text() for path in sorted((repository / "tests" / "doctor").glob("test_*.py")))
    assert not [kind.code for kind in KINDS if f'"{kind.code}"' not in tests]

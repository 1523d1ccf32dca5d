"""No code block of the documentation goes unchecked."""

from __future__ import annotations

from tests.docs.pages import blocks

CHECKED = {
    "python": "test_python_blocks.py runs it",
    "bash": "test_shell_blocks.py parses it by the tools' own parsers and readers",
    "yaml": "test_yaml_blocks.py reads it as a configuration, recipes or a data.yaml",
    "math": "the site's build refuses what it cannot draw",
}
EXEMPT = {
    ("docs/kernels.md", "text"): "formulas in plain text; tests/ops compares what they compute with references in float64",
}


def test_every_block_is_checked_or_exempt_for_a_reason() -> None:
    unchecked = {(block.page, block.language) for block in blocks() if block.language not in CHECKED}
    assert unchecked == set(EXEMPT)

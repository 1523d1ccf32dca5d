"""What the docs say of the code is what the code says: losses, defaults, keys, messages."""

from __future__ import annotations

import ast
import inspect
import re

import make_docs
import pytest
from docs_keys import model_keys
from docs_losses import arguments
from pydantic import BaseModel

from detkd.config import ClassificationConfig, DetectionConfig, SegmentationConfig
from detkd.losses import LOSSES
from tests.docs.pages import PAGES, ROOT

METHODS = PAGES["docs/methods.md"]
TROUBLES = PAGES["docs/troubleshooting.md"]


@pytest.mark.parametrize("page", ["docs/methods.md", "docs/configuration.md", "docs/doctor.md"])
def test_a_page_is_filled_from_the_code_as_it_is(page: str) -> None:
    assert make_docs.fill(PAGES[page]) == PAGES[page], "run `python tools/make_docs.py`"


def test_every_loss_has_a_section_with_all_that_belongs_to_it() -> None:
    sections = re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", METHODS, re.MULTILINE | re.DOTALL)
    assert sorted(name for name, _ in sections) == sorted(LOSSES)
    for name, text in sections:
        assert f"<!-- loss {name} -->" in text, name
        assert "```math" in text or "$" in text.partition("|")[0], f"{name} has no formula"
        assert re.search(r"^Source: \S", text, re.MULTILINE), name
        for part in ("When", "When not", "Cost"):
            assert f"- **{part}:** " in text, (name, part)


def test_a_default_that_changes_is_seen() -> None:
    row = "| `temperature` | `4.0` |"
    assert row in METHODS
    assert make_docs.fill(METHODS.replace(row, row.replace("4.0", "5.0"))) == METHODS


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_every_setting_of_a_loss_is_listed_with_its_default(name: str) -> None:
    settings = inspect.signature(LOSSES[name]).parameters
    listed = arguments(name)
    assert {key: value.default for key, value in settings.items() if key in listed} == {
        key: listed[key].default for key in settings if key not in {"args", "kwargs"}
    }


def test_the_readme_lists_every_loss_with_the_source_of_its_docstring() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ([^|]*) \|$", PAGES["README.md"], re.MULTILINE))
    assert sorted(rows) == sorted(LOSSES)
    for name, source in rows.items():
        given = METHODS.partition(f"<!-- loss {name} -->")[2].partition("<!-- end -->")[0].partition("\nSource: ")[2]
        assert all(author in given for author in re.findall(r"[A-Z][a-z]\w+", source)), (name, source, given)


def sections(model: type[BaseModel]) -> set[type[BaseModel]]:
    """The sections that a model's keys hold, and theirs."""
    inner = {part for field in model.model_fields.values() for part in _models(field.annotation)}
    return {model}.union(*(sections(part) for part in inner))


def _models(annotation: object) -> set[type[BaseModel]]:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in getattr(annotation, "__args__", ()) for model in _models(part)}


@pytest.mark.parametrize("config", [DetectionConfig, SegmentationConfig, ClassificationConfig])
def test_every_key_of_a_configuration_is_described(config: type[BaseModel]) -> None:
    for section in sections(config):
        listed = f"<!-- keys {section.__module__}.{section.__qualname__} -->" in PAGES["docs/configuration.md"]
        assert listed or section is config, section  # what a task adds to all runs is a section of its own
        undescribed = [key for key, _, _, meaning in model_keys(section) if not meaning]
        assert not undescribed, section


def strings() -> str:
    """All text that detkd may say, with … for what is filled in."""
    found = []
    for path in sorted((ROOT / "detkd").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = node.values
                found.append("".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


def test_every_message_that_is_quoted_exists() -> None:
    said = strings().replace("`", "")
    quoted = re.findall(r"(`{1,2})((?:Expected|expected|Give|runs its losses|for the|train\.batch: ).*?)\1", TROUBLES)
    assert len(quoted) >= 12
    for _, message in quoted:
        assert message.replace("`", "").rstrip("… ") in said, message

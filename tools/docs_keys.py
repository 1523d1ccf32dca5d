"""The keys of a configuration's section, as Markdown for docs/configuration.md; see make_docs.py."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import griffe
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

Row = tuple[str, str, str, str]  # key, type, default, meaning

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false", "Path": "path", "Any": "any"}


def keys_block(path: str) -> str:
    """A table of the keys of a section that a pydantic model or a dataclass declares, by its dotted name."""
    home, _, name = path.rpartition(".")
    section = getattr(importlib.import_module(home), name)
    keys = dataclass_keys(section) if is_dataclass(section) else model_keys(section)
    rows = [f"| `{key}` | {kind} | {default} | {cell(meaning)} |" for key, kind, default, meaning in keys]
    return "\n".join(["| key | type | default | meaning |", "|---|---|---|---|", *rows])


def model_keys(model: type[BaseModel]) -> Iterator[Row]:
    """Of a pydantic model, the keys that it does not inherit from another section."""
    inherited = {key for base in model.__mro__[1:] if issubclass(base, BaseModel) for key in base.model_fields}
    for key, declared in model.model_fields.items():
        if key not in inherited:
            kind = _type(declared.annotation, _bounds(declared))
            yield key, kind, _default(declared), declared.description or ""


def dataclass_keys(section: type) -> Iterator[Row]:
    """Of a dataclass, whose docstring describes its attributes."""
    attributes = griffe.DocstringSectionKind.attributes
    parts = griffe.Docstring(inspect.getdoc(section) or "").parse("google", warnings=False)
    meanings = {entry.name: entry.description for part in parts if part.kind is attributes for entry in part.value}
    types = inspect.get_annotations(section, eval_str=True)
    for declared in fields(section):
        default = "required" if declared.default is MISSING else f"`{yaml_value(declared.default)}`"
        yield declared.name, _type(types[declared.name]), default, meanings[declared.name]


def yaml_value(value: object) -> str:
    """A default as YAML writes it."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(yaml_value, value))}]"
    return {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else str(value)


def cell(text: str) -> str:
    """Text that fits into a table."""
    return " ".join(text.split()).replace("|", r"\|")


def _default(declared: FieldInfo) -> str:
    if declared.default_factory is not None:
        return "`{}`" if declared.default_factory is dict else "see below"
    return "required" if declared.default is PydanticUndefined else f"`{yaml_value(declared.default)}`"


def _bounds(declared: FieldInfo) -> str:
    found = [(sign, getattr(item, key, None)) for item in declared.metadata for key, sign in BOUNDS.items()]
    return "".join(f" {sign} {bound}" for sign, bound in found if bound is not None)


def _type(annotation: Any, bounds: str = "") -> str:
    """What may stand behind the key in a YAML file, with the bounds of a number."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in {Union, UnionType}:
        return " or ".join("null" if kind is NoneType else _type(kind, bounds) for kind in inner)
    kinds = {
        Literal: lambda: ", ".join(f"`{value}`" for value in inner),
        tuple: lambda: f"list of {_type(inner[0])}",
        dict: lambda: "mapping",
        Annotated: lambda: _type(inner[0]),
    }
    if origin in kinds:
        return kinds[origin]()
    sections = inspect.isclass(annotation) and (issubclass(annotation, BaseModel) or is_dataclass(annotation))
    return "section" if sections else TYPES[annotation.__name__] + bounds

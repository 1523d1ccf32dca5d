"""Docstrings for the site: what is Sphinx's notation in them becomes Markdown, see mkdocs.yml."""

from __future__ import annotations

import importlib
import inspect
import re
import textwrap
from typing import TYPE_CHECKING, Any

import griffe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

BLOCK = re.compile(r"^( *)\.\. math::[ \n]+(.+?)(?=\n\s*\n|\s*\Z)", re.DOTALL | re.MULTILINE)
ROLE = re.compile(r":(func|class|meth|mod|math):`([^`]+)`", re.DOTALL)


def to_markdown(docstring: str, reference: Callable[[str], str]) -> str:
    """Formulas and references of a docstring as Markdown.

    Args:
        docstring: With ``:math:``, ``.. math::`` and roles such as ``:func:``.
        reference: From the name that a role refers to, to what stands for it.
    """

    def fence(found: re.Match[str]) -> str:
        formula = "\n".join(line.strip() for line in found[2].splitlines())
        return textwrap.indent(f"```math\n{formula}\n```", found[1])

    def role(found: re.Match[str]) -> str:
        text = " ".join(found[2].split())
        if found[1] != "math":
            return reference(text.removeprefix("~"))
        # Code hosts that draw formulas take a backslash before punctuation for an escape of Markdown.
        formula = text.replace(r"\| ", r"\Vert ").replace(r"\, ", r"\ ")
        return f"${formula}$"

    return ROLE.sub(role, BLOCK.sub(fence, docstring))


def canonical(name: str, module: ModuleType) -> str:
    """Where a name that a docstring refers to is defined: ``detkd.losses.bckd`` is ``detkd.losses.bckd.bckd``."""
    try:
        found = _resolve(name, module)
    except (AttributeError, ImportError):
        return name
    if inspect.ismodule(found):
        return found.__name__
    home, qualified = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    return f"{home}.{qualified}" if home and qualified else name


def _resolve(name: str, module: ModuleType) -> Any:
    """The object of a name, which is whole or begins in the module."""
    first, *rest = name.split(".")
    if hasattr(module, first):
        found: Any = module
        for part in (first, *rest):
            found = getattr(found, part)
        return found
    home, _, last = name.rpartition(".")
    return getattr(importlib.import_module(home), last) if home else importlib.import_module(last)


class Docstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed; a reference to what the site does not show stays plain."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Take one object's."""
        if obj.docstring is None:
            return
        module = importlib.import_module(obj.module.path)

        def link(name: str) -> str:
            return f'<autoref optional identifier="{canonical(name, module)}"><code>{name}</code></autoref>'

        obj.docstring.value = to_markdown(obj.docstring.value, link)

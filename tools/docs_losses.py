"""What the docstrings and signatures of a loss say, as Markdown for docs/methods.md; see make_docs.py."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import griffe
from docs_docstrings import to_markdown
from docs_keys import cell

from detkd import losses
from detkd.losses import LOSSES

if TYPE_CHECKING:
    from collections.abc import Mapping

ALIGNERS = {
    "none": "no aligner, the channels may differ",
    "linear": "aligned by a 1×1 convolution where the channels differ",
    "mlp": "aligned by two 1×1 convolutions around a ReLU",
}


@dataclass
class Described:
    """What a docstring says, as Markdown."""

    text: str = ""
    source: str = ""
    arguments: dict[str, str] = field(default_factory=dict)


def loss_block(name: str) -> str:
    """Formula, arguments with shapes and defaults, weight, aligner and source of a loss."""
    kind = LOSSES[name]
    documented = [getattr(losses, name) if name in losses.__all__ else kind, kind, kind.forward]
    described = [describe(inspect.getdoc(part) or "") for part in documented]
    meanings = {key: text for part in reversed(described) for key, text in part.arguments.items()}
    rows = [
        f"| `{key}` | {'' if parameter.default is parameter.empty else f'`{parameter.default!r}`'} "
        f"| {cell(meanings[key])} |"
        for key, parameter in arguments(name).items()
    ]
    weight = f"Weight with `balance: none`: {vars(kind)['default_weight']:g}"
    aligner = f"; {ALIGNERS[vars(kind)['aligner']]}" if "aligner" in vars(kind) else ""
    head = [described[0].text, "", "| argument | default | |", "|---|---|---|"]
    return "\n".join([*head, *rows, "", f"{weight}{aligner}.", "", f"Source: {described[0].source}"])


def arguments(name: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a loss: its function's, or its module's ``forward``'s where it has none, and what the module adds."""
    kind = LOSSES[name]
    called = getattr(losses, name) if name in losses.__all__ else kind.forward
    found = {**inspect.signature(called).parameters}
    if "__init__" in vars(kind):
        found |= {key: value for key, value in inspect.signature(kind.__init__).parameters.items() if key not in found}
    return {key: parameter for key, parameter in found.items() if key != "self"}


def describe(docstring: str) -> Described:
    """Read a docstring in Google's style."""
    found = Described()
    options: dict[str, Any] = {"warnings": False, "warn_missing_types": False}
    for section in griffe.Docstring(to_markdown(docstring, _reference)).parse("google", **options):
        if section.kind is griffe.DocstringSectionKind.text:
            found.text += section.value
        elif section.kind is griffe.DocstringSectionKind.parameters:
            found.arguments = {argument.name: argument.description for argument in section.value}
        elif section.title == "Source":
            found.source = section.value.description
    return found


def _reference(name: str) -> str:
    """A link to another loss of the page; anything else as code."""
    last = name.rpartition(".")[2]
    return f"[`{last}`](#{last})" if last in LOSSES else f"`{name}`"

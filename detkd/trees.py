"""Trees of plain values out of YAML and JSON that anybody may have written.

Both readers raise nothing but ValueError, with one line that says why; whoever calls them names the file.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import yaml

from detkd.errors import one_line

if TYPE_CHECKING:
    from collections.abc import Hashable

MOST_VALUES = 200_000  # of a YAML; a few lines of aliases may stand for any number, or for themselves
NESTED = "it is nested too deeply"


def parse_yaml(text: str) -> Any:
    """Read YAML of plain values.

    Raises:
        ValueError: If it is none, has a key twice, or stands for too many values.
    """
    try:
        tree = yaml.load(text, _Loader)
        _check_size(tree)
    except RecursionError as error:
        raise ValueError(NESTED) from error
    except Exception as error:  # tags such as !!int "" fail as Python's own functions happen to
        raise ValueError(one_line(error)) from error
    return tree


def parse_json(text: str | bytes) -> Any:
    """Read JSON.

    Raises:
        ValueError: If it is none.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(NESTED) from error


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which takes the last of equal keys and lets merges grow without bound."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [(key.tag, key.value) for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None) if len(set(keys)) < len(keys) else None
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice[1]!r} is there twice", node.start_mark)
        return super().construct_mapping(node, deep)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES:,} values")


def _check_size(tree: Any) -> None:
    """Count the values of a tree, those behind an alias each time that it stands for them."""
    count, waiting = 0, [tree]
    while waiting:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            waiting += value
        if count + len(waiting) > MOST_VALUES:
            raise ValueError(f"it stands for more than {MOST_VALUES:,} values, each alias counted")

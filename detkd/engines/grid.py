"""Recipes that go through the values of one key of the configuration, or of two."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from detkd.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Axis:
    """A key of the configuration, and the values that it is given.

    Attributes:
        key: Such as ``distill.terms.soft_kl.temperature``.
        values: As they stand in ``key=value``.
    """

    key: str
    values: tuple[str, ...]

    @property
    def label(self) -> str:
        """Last part of the key."""
        return self.key.rsplit(".", 1)[-1]


def parse_grid(given: Sequence[str]) -> list[Axis]:
    """Read axes of the form ``key=a,b,c``.

    Raises:
        ConfigError: If there are more than two, or one has another form, or a value twice.
    """
    axes = []
    for text in given:
        key, _, listed = text.partition("=")
        values = tuple(value.strip() for value in listed.split(","))
        if not key or "" in values or len(set(values)) != len(values):
            raise ConfigError(f"--grid: expected key=a,b,c with different values, but got {text!r}.")
        axes.append(Axis(key, values))
    if len(axes) > 2 or len({axis.key for axis in axes}) != len(axes):
        raise ConfigError(f"--grid: expected one key or two different ones, but got {[axis.key for axis in axes]}.")
    return axes


def grid_recipes(axes: Sequence[Axis]) -> dict[str, list[str]]:
    """A recipe for each combination of values, the last axis fastest: a name, and what it changes as ``key=value``.

    Raises:
        ConfigError: If two combinations get the same name.
    """
    recipes: dict[str, list[str]] = {}
    for values in product(*(axis.values for axis in axes)):
        name = cell_name(axes, values)
        if name in recipes:
            raise ConfigError(f"--grid: expected values that names of folders tell apart, but two are called {name}.")
        recipes[name] = [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]
    return recipes


def cell_name(axes: Sequence[Axis], values: Sequence[str]) -> str:
    """Name of the recipe of a combination, which is also that of its runs' folders."""
    parts = (f"{axis.label}-{value}" for axis, value in zip(axes, values, strict=True))
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(parts))

"""The configuration that a run's folder keeps, against one that is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from detkd.config import load_config

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from detkd.config import RunConfig

CONFIG = "config.yaml"  # in the folder of a run
SHOWN = 4  # of the keys that differ


def describe_changes(folder: Path, config: RunConfig) -> str | None:
    """Say where a configuration differs from the one that a run was started with; None where it does not.

    What the run's file does not say has its default: a detkd that knew fewer keys may have written it.

    Args:
        folder: Of the run.
        config: What is asked for.

    Raises:
        ConfigError: If the file is no configuration, or has a key that is no longer known.
    """
    kept, asked = (dict(_leaves(one.model_dump(mode="json"))) for one in (load_config(folder / CONFIG), config))
    changed = [key for key in (kept | asked) if kept.get(key) != asked.get(key)]
    if not changed:
        return None
    parts = [f"{key} is {kept.get(key)} there and {asked.get(key)} here" for key in changed[:SHOWN]]
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return "; ".join(parts) + more


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a tree by its key from the root."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

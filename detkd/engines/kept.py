"""The configuration and the weights that a run began with, against those asked for, or those of another run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from detkd.config import load_config
from detkd.errors import ConfigError, DataError, one_line
from detkd.files import write_json
from detkd.model_config import CHECKPOINTS
from detkd.report.curves import read_curves
from detkd.report.gallery import read_index
from detkd.report.records import RESULTS, read_results
from detkd.trees import parse_json
from detkd.weights import weights_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from detkd.config import RunConfig

CONFIG = "config.yaml"  # in the folder of a run
WEIGHTS = "weights.json"  # beside it: the digest of the weights in each file that a run starts from
SHOWN = 4  # of the keys that differ
INCIDENTAL = ("name", "output", "loggers")  # keys that change nothing of what a run finds


def describe_changes(folder: Path, config: RunConfig) -> str | None:
    """Say where a configuration differs from the one that a run was started with; None where it does not.

    What the run's file does not say has its default: a detkd that knew fewer keys may have written it.

    Args:
        folder: Of the run.
        config: What is asked for.

    Raises:
        ConfigError: If the file is no configuration, or has a key that is no longer known.
    """
    return _changes(_kept(folder), config)


def keep_weights(folder: Path, config: RunConfig) -> None:
    """Write down which weights a run starts from, teachers' and its own: under the same path may lie other ones later.

    Args:
        folder: Of the run.
        config: The run.
    """
    digests = {path: weights_digest(Path(path)) for path in _weight_files(config)}
    known = {path: digest for path, digest in digests.items() if digest is not None}
    if known:
        write_json(folder / WEIGHTS, known)
    else:
        (folder / WEIGHTS).unlink(missing_ok=True)  # of a run that was begun here before


def kept_weights(folder: Path, config: RunConfig) -> dict[str, str]:
    """The digests of the weights that a run was started with, by the files' paths in its configuration.

    Empty where neither teacher nor student is read from a file, and for a run of a detkd that wrote no digests down.

    Args:
        folder: Of the run.
        config: The run.

    Raises:
        DataError: If the file is broken.
    """
    files, path = _weight_files(config), folder / WEIGHTS
    if not files or not path.exists():
        return {}
    try:
        content = parse_json(path.read_bytes())
        if not isinstance(content, dict) or not all(isinstance(digest, str) for digest in content.values()):
            raise ValueError("it is no object of digests")
    except (OSError, ValueError) as error:
        raise DataError(
            f"Expected the digests of a run's weights in {path}, but: {one_line(error)}. Delete the run to make it anew."
        ) from error
    return {file: content[file] for file in files if file in content}


def other_weights(folder: Path, config: RunConfig, digest: Callable[[Path], str | None] = weights_digest) -> list[str]:
    """The paths of a run's teachers, and of its student, whose weights are no longer those that it was started with.

    A file that is gone is none: a finished run needs it no more.

    Args:
        folder: Of the run.
        config: The run.
        digest: Of the weights in a file.

    Raises:
        DataError: See :func:`kept_weights`.
    """
    kept = kept_weights(folder, config)
    return [path for path, own in kept.items() if digest(Path(path)) not in (own, None)]


def find_baseline(folder: Path) -> Path | None:
    """The run beside a distilled one that trained the same student alone: the first by name, or None where there is none.

    Its configuration is the same but for `distill`, and its data had as many pictures.

    Args:
        folder: Of the distilled run.
    """
    try:
        config = _kept(folder)
        if config.distill is None:
            return None
        run = _began(folder, config)
    except (ConfigError, DataError):  # of an earlier version, or broken
        return None
    for other in sorted(path.parent for path in folder.resolve().parent.glob(f"*/{RESULTS}")):
        try:
            if _no_baseline(run, other) is None:
                read_curves(other), read_index(other)  # what a report shows of it, too
                return other
        except (ConfigError, DataError):  # a run of an earlier version, or a broken one, is none to compare with
            continue
    return None


def check_baseline(folder: Path, other: Path) -> Path:
    """Refuse to compare a run with another one from which it differs by more than distillation; see :func:`find_baseline`.

    Args:
        folder: Of the distilled run.
        other: Of the run that is to have trained the same student alone.

    Returns:
        The other.

    Raises:
        ConfigError: If the runs differ, or have kept no configuration.
        DataError: If either is not finished, or its results are broken.
    """
    config = _kept(folder)
    if config.distill is None:
        raise ConfigError(
            f"baseline: expected a distilled run to compare another with, but {folder} is not distilled itself. "
            "Ask for the report of the distilled one, or use detkd compare."
        )
    reason = _no_baseline(_began(folder, config), other)
    if reason is not None:
        raise ConfigError(
            f"baseline: expected a run that differs from {folder} by distill=null alone, but {reason}. Train one, "
            f"detkd train-… --config {folder / CONFIG} distill=null name=alone, or use detkd compare."
        )
    return other


class _Run(NamedTuple):
    """What a finished run began with: its configuration, the number of its pictures, the digests of its weights."""

    config: RunConfig
    images: dict[str, int]
    weights: dict[str, str]


def _began(folder: Path, config: RunConfig) -> _Run:
    return _Run(config, _images(folder), kept_weights(folder, config))


def _no_baseline(run: _Run, other: Path) -> str | None:
    """Why a run is not the one to compare a distilled one with; None where it is."""
    alone = _kept(other)
    incidental = {key: getattr(alone, key) for key in INCIDENTAL}
    changes = _changes(alone, run.config.model_copy(update={"distill": None, **incidental}))
    if changes is not None:
        return f"in {other / CONFIG} {changes}"
    others = _images(other)
    if others != run.images:
        return f"its pictures were {others} and not {run.images}"
    began = kept_weights(other, alone)
    changed = [path for path in run.weights.keys() & began.keys() if run.weights[path] != began[path]]
    return f"the weights in {changed[0]} were others when it began" if changed else None


def _images(folder: Path) -> dict[str, int]:
    """How many images each split of a finished run had."""
    images: dict[str, int] = read_results(folder)["data"]["images"]
    return images


def _kept(folder: Path) -> RunConfig:
    """The configuration that a run was started with."""
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(f"Expected the configuration of a run in {path}, but there is none.")
    try:
        return load_config(path)
    except ConfigError as error:
        lines = [line if str(path) in line else f"{path}: {line}" for line in str(error).splitlines()]
        raise ConfigError("\n".join(lines)) from error


def _weight_files(config: RunConfig) -> list[str]:
    """The files that a run's student and teachers are read from, that of ultralytics' own distillation among them."""
    specs = (config.student, *(config.distill.all_teachers if config.distill is not None else ()))
    weights = [str(spec.weights) for spec in specs if spec.weights is not None]
    models = [spec.model for spec in specs if spec.weights is None] + [config.trainer.get("distill_model")]
    checkpoints = [model for model in models if isinstance(model, str) and model.endswith(CHECKPOINTS)]
    return list(dict.fromkeys(weights + checkpoints))


def _changes(kept: RunConfig, asked: RunConfig) -> str | None:
    """What differs between two configurations, one there and one here; None where nothing does."""
    there, here = (dict(_leaves(one.model_dump(mode="json"))) for one in (kept, asked))
    changed = [key for key in (there | here) if there.get(key) != here.get(key)]
    if not changed:
        return None
    parts = [f"{key} is {there.get(key)} there and {here.get(key)} here" for key in changed[:SHOWN]]
    more = f", and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return "; ".join(parts) + more


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Each value of a tree by its key from the root."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

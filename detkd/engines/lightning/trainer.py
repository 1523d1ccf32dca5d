"""Lightning's Trainer, as a run's configuration wants it."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detkd.engines.lightning.arguments import SHARDED, import_lightning, trainer_arguments
from detkd.errors import ConfigError, WeightsError, one_line
from detkd.files import replacing
from detkd.weights import read_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from detkd.config import RunConfig

# Of a checkpoint that a run goes on from: Lightning's, and those of StudentModule.
PARTS = frozenset({"state_dict", "distiller", "distill_weights", "optimizer_states", "callbacks", "loops", "epoch"})

# Lightning says so where nothing is wrong, or where only its own habits are not followed.
_NOISE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*You are using a .* device with Tensor Cores.*",
)


def make_trainer(config: RunConfig, folder: Path) -> Any:
    """Build the trainer of a run.

    Args:
        config: The run.
        folder: Where Lightning keeps what it writes.

    Raises:
        ConfigError: If Lightning refuses an argument, or the batch cannot be shared by the processes.
    """
    lightning = import_lightning()
    arguments = trainer_arguments(config)
    if arguments.get("strategy") == SHARDED:
        from detkd.engines.lightning.strategy import ShardedStrategy

        arguments["strategy"] = ShardedStrategy()
    try:
        trainer = lightning.Trainer(**arguments, default_root_dir=folder, plugins=[_whole_files()])
    except (ValueError, TypeError, RuntimeError, lightning.utilities.exceptions.MisconfigurationException) as error:
        raise ConfigError(
            f"trainer, train.device: expected what Lightning's Trainer takes, but: {one_line(error)}"
        ) from error
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched not in {1, trainer.world_size}:  # each would train alone, in the same folder
        raise ConfigError(
            f"trainer: expected {{strategy: ddp, devices: {launched}}} for the {launched} processes that were launched (or "
            f"fsdp), but it makes {trainer.world_size}."
        )
    if config.train.batch % trainer.world_size:
        raise ConfigError(
            f"train.batch: expected a multiple of the {trainer.world_size} processes, but got {config.train.batch}."
        )
    return trainer


def _whole_files() -> Any:
    from lightning_fabric.plugins import TorchCheckpointIO

    class WholeFiles(TorchCheckpointIO):
        """Checkpoints that are whole or not there, and hold nothing but tensors and plain values."""

        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            """Write beside the place, and move there what is whole."""
            with replacing(Path(path)) as temporary:
                torch.save(checkpoint, temporary)

        def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
            """Read without unpickling anything else.

            Raises:
                WeightsError: If the file is broken, or no checkpoint of detkd.
            """
            checkpoint: dict[str, Any] = read_tensors(Path(path))
            missing = PARTS - set(checkpoint) if isinstance(checkpoint, dict) else PARTS
            if missing:
                raise WeightsError(f"Expected {path} to be the checkpoint of a run, but it lacks {sorted(missing)}.")
            return checkpoint

    return WholeFiles()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Lightning to what a user can act on: its banners and tips would break into our lines."""
    import_lightning()  # which sets its loggers' levels
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        for noise in _NOISE:
            warnings.filterwarnings("ignore", message=noise)
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)

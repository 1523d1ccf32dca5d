"""Arguments of Lightning's Trainer from a run's configuration."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from detkd.errors import ConfigError, DetkdError

if TYPE_CHECKING:
    from detkd.config import RunConfig

# What detkd sets itself: from other sections, or because its own loop of epochs, validation and checkpoints needs it so.
_RESERVED = frozenset(
    {
        "accelerator",
        "barebones",
        "callbacks",
        "check_val_every_n_epoch",
        "default_root_dir",
        "enable_autolog_hparams",
        "enable_checkpointing",
        "enable_model_summary",
        "enable_progress_bar",
        "fast_dev_run",
        "gradient_clip_algorithm",
        "gradient_clip_val",
        "inference_mode",
        "limit_predict_batches",
        "limit_test_batches",
        "limit_val_batches",
        "logger",
        "max_epochs",
        "max_steps",
        "max_time",
        "min_epochs",
        "min_steps",
        "model_registry",
        "num_sanity_val_steps",
        "overfit_batches",
        "plugins",
        "reload_dataloaders_every_n_epochs",
        "use_distributed_sampler",
        "val_check_interval",
    }
)
_PURE = frozenset({"16-true", "bf16-true", "64", "64-true", "transformer-engine", "transformer-engine-float16"})
SHARDED = "fsdp"
_SCALED = frozenset({"16", "16-mixed"})
STRATEGIES = ("auto", "ddp", SHARDED)


def import_lightning() -> Any:
    """Import PyTorch Lightning.

    Raises:
        DetkdError: If it is not installed.
    """
    try:
        import pytorch_lightning
    except ModuleNotFoundError as error:
        raise DetkdError("Students outside ultralytics need Lightning: pip install 'detkd[torchvision]'.") from error
    return pytorch_lightning


def trainer_arguments(config: RunConfig) -> dict[str, Any]:
    """Merge detkd's settings and the user's into arguments of Lightning's Trainer.

    Args:
        config: The run's configuration.

    Raises:
        ConfigError: One line for each key of `trainer` that Lightning does not know or that another section sets.
    """
    known = set(inspect.signature(import_lightning().Trainer.__init__).parameters) - {"self"}
    given = config.trainer
    faults = [f"trainer.{key}: set by another section, or by detkd; remove it here." for key in given if key in _RESERVED]
    faults += [
        f"trainer.{key}: unknown to Lightning's Trainer; got {value!r}." for key, value in given.items() if key not in known
    ]
    if given.get("strategy", "auto") not in STRATEGIES:
        faults.append(f"trainer.strategy: expected one of {list(STRATEGIES)}, but got {given['strategy']!r}.")
    if given.get("strategy") == SHARDED:
        faults += _not_sharded(config)
    if str(given.get("precision")) in _PURE:
        faults.append(
            f"trainer.precision: expected 32-true, bf16-mixed or 16-mixed, since pictures and losses stay in float32; got "
            f"{given['precision']!r}."
        )
    device = _device(config.train.device)
    if device is None:
        faults.append(f"train.device: expected cpu, mps, or numbers of GPUs such as 0 or 0,1; got {config.train.device!r}.")
    if faults:
        raise ConfigError("\n".join(faults))
    return {
        **(device or {}),
        **given,
        "max_epochs": config.train.epochs,
        "enable_checkpointing": False,
        "enable_model_summary": False,
        "enable_progress_bar": False,
        "limit_val_batches": 0,
        "logger": False,  # see detkd.engines.following
        "use_distributed_sampler": False,  # the sampler knows the processes
    }


def _not_sharded(config: RunConfig) -> list[str]:
    """What a student that is sharded cannot have."""
    faults, teachers = [], config.distill.all_teachers if config.distill is not None else ()
    if config.distill is not None and config.distill.balance == "meta":
        faults.append(
            "distill.balance: expected another than meta with trainer.strategy=fsdp, where no process has the gradient of "
            "all parameters that it compares; take gradient_ratio, or trainer.strategy=ddp."
        )
    if any(spec.ema is not None for spec in teachers):
        faults.append(
            "distill.teacher.ema: expected none with trainer.strategy=fsdp: the average would have to be put together in "
            "each step; take trainer.strategy=ddp."
        )
    if any(spec.compile for spec in teachers):
        faults.append(
            "distill.teacher.compile: expected false with trainer.strategy=fsdp, which puts a teacher together while it "
            "runs; take trainer.strategy=ddp."
        )
    if str(config.trainer.get("precision")) in _SCALED:
        faults.append(
            "trainer.precision: expected 32-true or bf16-mixed with trainer.strategy=fsdp, whose processes would scale "
            f"their losses differently; got {config.trainer['precision']!r}."
        )
    return faults


def _device(name: str) -> dict[str, Any] | None:
    """Lightning's words for a device of ours; None if it is none."""
    if name in {"cpu", "mps"}:
        return {"accelerator": name, "devices": 1}
    numbers = name.removeprefix("cuda:").split(",")
    if all(number.strip().isdigit() for number in numbers):
        return {"accelerator": "cuda", "devices": [int(number) for number in numbers]}
    return None

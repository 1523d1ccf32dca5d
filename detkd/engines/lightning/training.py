"""A detector's training by Lightning: everything outside ultralytics."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import distributed

from detkd.data.augment import Augmentation
from detkd.data.loading import AugmentedPictures, training_loader
from detkd.data.sampling import AddressSampler, repeat_factors
from detkd.engines.lightning.arguments import import_lightning, trainer_arguments
from detkd.engines.result import TrainingResult
from detkd.engines.views.lightning import PictureViews
from detkd.errors import ConfigError
from detkd.evaluation.coco import evaluate_coco
from detkd.evaluation.torchvision import predict_coco
from detkd.files import replacing
from detkd.models.torchvision import save_model
from detkd.report.console import TrainingProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import nn
    from torch.utils.data import DataLoader

    from detkd.config import DetectionConfig
    from detkd.data.detection import DetectionDataset
    from detkd.data.loading import Batch
    from detkd.distiller import Distiller
    from detkd.lightning_config import LoadingConfig, OptimConfig

FOLDER = Path("lightning")  # in a run's folder
LAST_CHECKPOINT = FOLDER / "last.ckpt"
# Lightning says so where nothing is wrong, or where only its own habits are not followed.
_NOISE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*You are using a .* device with Tensor Cores.*",
)


def torch_device(name: str) -> torch.device:
    """The first device of a name in a configuration."""
    return torch.device(name if name in {"cpu", "mps"} else f"cuda:{name.removeprefix('cuda:').split(',')[0].strip()}")


def check(config: DetectionConfig) -> None:
    """Refuse what Lightning or albumentations would refuse, before anything is loaded.

    Raises:
        ConfigError: With one line for each fault.
    """
    faults = []
    for part in (lambda: trainer_arguments(config), lambda: Augmentation(config.augment or (), config.train.imgsz)):
        try:
            part()
        except ConfigError as error:
            faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    with _quiet():
        _make_trainer(config, config.output / config.name / FOLDER)


def training_views(
    config: DetectionConfig, dataset: DetectionDataset, student: nn.Module | None = None
) -> PictureViews | None:
    """The augmented pictures of a run whose teacher is cached; None where no teacher is."""
    if config.distill is None or config.distill.views is None:
        return None
    count = min(config.distill.views, config.train.epochs)
    return PictureViews(_pictures(config, dataset, student), config.augment or (), count, _workers(config))


def train(
    student: nn.Module,
    distiller: Distiller | None,
    config: DetectionConfig,
    dataset: DetectionDataset,
    folder: Path,
    *,
    resume: bool = False,
) -> TrainingResult:
    """Train a student with Lightning.

    Started under torchrun, all processes return the same result.

    Args:
        student: A detector that follows torchvision's calling convention and takes pictures of ``train.imgsz`` as they are.
        distiller: Its distiller, or None to train alone.
        config: The run.
        dataset: Its data.
        folder: The run's folder; ``lightning/`` in it gets ``last.ckpt``, ``best.safetensors`` and ``results.csv``.
        resume: Whether to go on from ``last.ckpt``.

    Raises:
        ConfigError: If Lightning refuses an argument, or the batch cannot be shared by the processes.
        DetkdError: If a loss is not finite.
    """
    with _quiet():
        trainer = _make_trainer(config, folder / FOLDER)
        from detkd.engines.lightning.callbacks import Averaging, Distilling, Showing, Watching
        from detkd.engines.lightning.module import DetectorModule

        optim, _ = _sections(config)
        module = DetectorModule(student, distiller, optim, seed=config.train.seed, replayed=_replays(config))
        averaging = Averaging(student, optim.ema) if optim.ema is not None else None
        judged = student if averaging is None else averaging.model
        judge = _judge(config, dataset, trainer, _takes_masks(student))
        watching = Watching(judged, judge, _save, folder / FOLDER, optim.patience)
        loader = _make_loader(config, dataset, student, trainer)
        console = None if trainer.is_global_zero else Console(quiet=True)
        with TrainingProgress(folder.name, config.train.epochs, console) as progress:
            trainer.callbacks += [Distilling(distiller, module.weight_log)] if distiller is not None else []
            trainer.callbacks += [averaging] if averaging is not None else []
            trainer.callbacks += [watching, Showing(progress, watching.rows)]
            trainer.fit(module, loader, ckpt_path=folder / LAST_CHECKPOINT if resume else None)
    return TrainingResult(
        checkpoint=watching.best,
        seconds=watching.rows[-1]["time"],
        history=watching.rows,
        weights=module.weight_log.epochs,
    )


def _sections(config: DetectionConfig) -> tuple[OptimConfig, LoadingConfig]:
    assert config.optim is not None, "the configuration of another engine"
    assert config.loading is not None
    return config.optim, config.loading


def _workers(config: DetectionConfig) -> int:
    workers = _sections(config)[1].workers
    if workers is not None:
        return workers
    return 0 if config.train.device == "cpu" else min(8, os.cpu_count() or 1)


def _replays(config: DetectionConfig) -> bool:
    """Whether a run goes through the views of a cache again and again."""
    return config.distill is not None and config.distill.views is not None


def _pictures(config: DetectionConfig, dataset: DetectionDataset, student: nn.Module | None) -> AugmentedPictures:
    """The training pictures: those of a cache are the same in all runs."""
    return AugmentedPictures(
        dataset.annotated("train"),
        Augmentation(config.augment or (), config.train.imgsz),
        salt="" if _replays(config) else str(config.train.seed),
        masks=student is not None and _takes_masks(student),
    )


def _takes_masks(student: nn.Module) -> bool:
    """Whether a detector learns masks, as torchvision's own have it."""
    heads: Any = getattr(student, "roi_heads", None)
    return heads is not None and bool(heads.has_mask())


def _make_loader(config: DetectionConfig, dataset: DetectionDataset, student: nn.Module, trainer: Any) -> DataLoader[Batch]:
    """This process's share of the batches."""
    _, loading = _sections(config)
    views = training_views(config, dataset, student)
    pictures = _pictures(config, dataset, student) if views is None else views.pictures
    rare = loading.sampling == "repeat_factor"
    sampler = AddressSampler(
        repeat_factors(pictures.images, loading.threshold) if rare else np.ones(len(pictures)),
        config.train.batch,
        seed=config.train.seed,
        views=None if views is None else views.count,
        rank=trainer.global_rank,
        processes=trainer.world_size,
    )
    return training_loader(pictures, sampler, config.train.batch // trainer.world_size, _workers(config))


def _make_trainer(config: DetectionConfig, folder: Path) -> Any:
    lightning = import_lightning()
    arguments = trainer_arguments(config)
    tensorboard = arguments.pop("logger", None) == "tensorboard"
    logger = lightning.loggers.TensorBoardLogger(folder, name="tensorboard", version="") if tensorboard else False
    try:
        trainer = lightning.Trainer(**arguments, logger=logger, default_root_dir=folder, plugins=[_whole_files()])
    except (ValueError, TypeError, RuntimeError, lightning.utilities.exceptions.MisconfigurationException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"trainer: expected arguments that Lightning's Trainer takes, but: {reason}") from error
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched not in {1, trainer.world_size}:  # each would train alone, in the same folder
        raise ConfigError(
            f"trainer: expected {{strategy: ddp, devices: {launched}}} for the {launched} processes that were launched, "
            f"but it makes {trainer.world_size}."
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
            """Read without unpickling anything else."""
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            return checkpoint

    return WholeFiles()


def _save(model: nn.Module, path: Path) -> None:
    """Write a model's tensors, with what it was built as where it says so."""
    if hasattr(model, "architecture"):
        save_model(model, path)
        return
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary)


def _judge(
    config: DetectionConfig, dataset: DetectionDataset, trainer: Any, masks: bool
) -> Callable[[nn.Module], Mapping[str, float]]:
    """COCO metrics of a model on the validation split, or on the training images where there is none."""
    truth, images = dataset.coco(dataset.watched), dataset.images(dataset.watched)
    masks = masks and all(annotation.get("segmentation") for annotation in truth["annotations"])
    settings = {"imgsz": config.train.imgsz, "batch": config.train.batch, "workers": _workers(config)}

    def judge(model: nn.Module) -> dict[str, float]:
        for buffer in model.buffers() if trainer.world_size > 1 else ():
            distributed.broadcast(buffer, src=0)  # the one whose statistics are kept
        own = images[trainer.global_rank :: trainer.world_size]
        found = predict_coco(model, own, truth, class_names=dataset.names, **settings)
        if trainer.world_size > 1:
            gathered: list[Any] = [None] * trainer.world_size
            distributed.all_gather_object(gathered, found)
            found = [detection for share in gathered for detection in share]
        boxes = evaluate_coco(truth, found)
        metrics = {"metrics/mAP50(B)": boxes["AP50"], "metrics/mAP50-95(B)": boxes["AP"]}
        return {**metrics, "metrics/mAP50-95(M)": evaluate_coco(truth, found, "segm")["AP"]} if masks else metrics

    return judge


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
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

"""Training by Lightning: everything outside ultralytics."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from detkd.engines.following import following, loggers_of
from detkd.engines.lightning.arguments import SHARDED, trainer_arguments
from detkd.engines.lightning.loading import make_loader, replays, sections, training_views
from detkd.engines.lightning.trainer import make_trainer, quiet
from detkd.engines.result import TrainingResult
from detkd.errors import ConfigError, DetkdError, WeightsError, one_line

if TYPE_CHECKING:
    from torch import nn

    from detkd.config import RunConfig
    from detkd.distiller import Distiller
    from detkd.engines.lightning.task import TrainingTask
    from detkd.engines.views.lightning import PictureViews

FOLDER = Path("lightning")  # in a run's folder
LAST_CHECKPOINT = FOLDER / "last.ckpt"


class LightningEngine:
    """The :class:`detkd.engines.families.Engine` of all students that ultralytics does not train.

    Args:
        task: What they are trained for.
    """

    LAST_CHECKPOINT = LAST_CHECKPOINT

    def __init__(self, task: TrainingTask) -> None:
        self.task = task

    def torch_device(self, name: str) -> torch.device:
        """The first device of a name in a configuration."""
        first = name.removeprefix("cuda:").split(",")[0].strip()
        return torch.device(name if name in {"cpu", "mps"} else f"cuda:{first}")

    def check(self, config: RunConfig) -> None:
        """Refuse what Lightning or albumentations would refuse, before anything is loaded.

        Raises:
            ConfigError: With one line for each fault.
        """
        faults = []
        for part in (trainer_arguments, self.task.check):
            try:
                part(config)
            except ConfigError as error:
                faults.append(str(error))
        if faults:
            raise ConfigError("\n".join(faults))
        with quiet():
            make_trainer(config, config.output / config.name / FOLDER)

    def batches_per_step(self, config: RunConfig) -> int:
        """Batches whose gradients the optimizer's step takes together."""
        return int(trainer_arguments(config).get("accumulate_grad_batches", 1))

    def training_views(self, config: RunConfig, dataset: Any, student: nn.Module | None = None) -> PictureViews | None:
        """The augmented pictures of a run whose teacher is cached; None where no teacher is."""
        return training_views(self.task, config, dataset, student)

    def train(
        self,
        student: nn.Module,
        distiller: Distiller | None,
        config: RunConfig,
        dataset: Any,
        folder: Path,
        *,
        resume: bool = False,
    ) -> TrainingResult:
        """Train a student.

        Started under torchrun, all processes return the same result.

        Args:
            student: Called in training with pictures and labels, it returns a dict of its losses; it takes pictures of
                ``train.imgsz`` as they are.
            distiller: Its distiller, or None to train alone.
            config: The run.
            dataset: Its data.
            folder: The run's folder; ``lightning/`` in it gets ``last.ckpt``, ``best.safetensors`` and ``results.csv``.
            resume: Whether to go on from ``last.ckpt``.

        Raises:
            ConfigError: If Lightning refuses an argument, or the batch cannot be shared by the processes.
            WeightsError: If ``last.ckpt`` is broken, or of something else.
            DetkdError: If a loss is not finite.
        """
        with quiet():
            trainer = make_trainer(config, folder / FOLDER)
            from detkd.engines.lightning.callbacks import Averaging, Continuing, Distilling, Showing, Watching
            from detkd.engines.lightning.module import StudentModule
            from detkd.engines.lightning.sharding import WholeCopy
            from detkd.engines.lightning.shared_teachers import SharedTeachers

            optim, _ = sections(config)
            place = trainer.global_rank, trainer.world_size
            loader, held_out = make_loader(self.task, config, dataset, student, *place)
            how: dict[str, Any] = {"seed": config.train.seed, "replayed": replays(config), "held_out": held_out}
            module = StudentModule(student, distiller, optim, self.task, **how)
            averaging = Averaging(student, optim.ema) if optim.ema is not None else None
            specs = config.distill.all_teachers if config.distill is not None else ()
            pairs = zip(specs, distiller.teachers, strict=True) if distiller is not None and specs else ()
            taught = [
                Averaging(student, spec.ema, model, f"teacher {number}")
                for number, (spec, model) in enumerate(pairs, start=1)
                if spec.ema is not None
            ]
            judged = student if averaging is None else averaging.model
            judge = self.task.judge(config, dataset, student, *place)
            sharded = config.trainer.get("strategy") == SHARDED
            if sharded:
                copied = WholeCopy(judged)
                judged, judge = copied.model, copied.judging(judge)
            save = partial(self.task.save, config)
            watching = Watching(judged, judge, self.task.watched, save, folder / FOLDER, optim.patience, optim.judge_every)
            told = self.task.title, self.task.watched
            with following(folder.name, config.train.epochs, *told, loggers_of(config, folder)) as followed:
                trainer.callbacks += [Distilling(distiller, module.weight_log)] if distiller is not None else []
                trainer.callbacks += [SharedTeachers(distiller.teachers)] if sharded and distiller is not None else []
                trainer.callbacks += [*([averaging] if averaging is not None else []), *taught]
                trainer.callbacks += [watching, Continuing(loader.sampler, watching.rows), Showing(followed, watching.rows)]
                last = folder / self.LAST_CHECKPOINT if resume else None
                try:
                    trainer.fit(module, loader, ckpt_path=last)
                except SystemExit as end:
                    if isinstance(end.__context__, KeyboardInterrupt):  # which Lightning makes an exit code of 1 of
                        raise KeyboardInterrupt from end
                    raise
                except (RuntimeError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
                    if last is None or watching.begun or isinstance(error, DetkdError):
                        raise
                    raise WeightsError(f"Expected {last} to be of this run, but: {one_line(error)}") from error
        return TrainingResult(
            checkpoint=watching.best,
            seconds=watching.rows[-1]["time"],
            history=watching.rows,
            weights=module.weight_log.epochs,
        )

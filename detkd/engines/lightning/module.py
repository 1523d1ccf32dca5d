"""A student, and its distiller, as Lightning trains them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from detkd.engines.lightning.optimizers import make_optimizer, make_schedule
from detkd.engines.lightning.sharding import clip_gradients, complete_gradients, is_sharded
from detkd.engines.views.lightning import STAGE
from detkd.engines.weight_log import WeightLog
from detkd.modes import holding_statistics
from detkd.seeds import seed_of
from detkd.teachers.store import View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
    from torch.optim import Optimizer

    from detkd.distiller import Distiller
    from detkd.engines.lightning.held_out import HeldOut
    from detkd.engines.lightning.task import TrainingTask
    from detkd.lightning_config import OptimConfig

_STUDENT, _DISTILLER = "student.", "distiller."


class StudentModule(LightningModule):
    """One step of a student that returns its own losses, with distillation terms behind them.

    The parameters of this module are the student's and the distiller's own (aligners, balance), so that all that is done to
    parameters, such as averaging gradients over processes, reaches both. Teachers are no part of it. Its checkpoints have
    the student's state dict under plain names, as if nothing else had been there, and the distiller's beside it.

    Args:
        student: Called in training with a list of inputs, such as RGB pictures in [0, 1], and the batch's labels, it
            returns a dict of its losses.
        distiller: The student's, or None to train it alone.
        optim: Optimizer and schedule.
        task: What it is trained for: it gives a batch's inputs, and its labels as distillation takes them.
        seed: Seed of everything that is drawn while it trains.
        replayed: Whether the batches' views come from a cache's.
        held_out: Samples that the balance looks ahead on, if any are set apart.

    Attributes:
        weight_log: Weights of the terms.
    """

    def __init__(
        self,
        student: nn.Module,
        distiller: Distiller | None,
        optim: OptimConfig,
        task: TrainingTask,
        *,
        seed: int,
        replayed: bool,
        held_out: HeldOut | None = None,
    ) -> None:
        super().__init__()
        # A fifth less time for a Faster R-CNN on a CPU, and nothing changes beyond rounding.
        self.student = student.to(memory_format=torch.channels_last)
        self.distiller = distiller
        self.weight_log = WeightLog()
        self._optim, self._task, self._seed, self._replayed = optim, task, seed, replayed
        self._held_out = held_out

    def on_train_epoch_start(self) -> None:
        """Let every epoch draw from a seed of its own, so that a resumed run draws what an uninterrupted one does."""
        torch.manual_seed(seed_of(f"{self._seed} {self.current_epoch} {self.global_rank}"))

    def training_step(self, batch: Any, index: int) -> Tensor:
        """The sum of the student's own losses, and what distillation adds to it."""
        if self.distiller is not None:
            self.distiller.epoch = self.current_epoch + index / float(self.trainer.num_training_batches)
            self.distiller.epochs = float(self.trainer.max_epochs or 1)
            if self._held_out is not None:
                self.distiller.look_ahead(self._held_out_loss)
        images = self._task.inputs(batch)
        losses = self._losses(batch, images)
        total = task = _sum(losses)
        terms: Mapping[str, Tensor] = {}
        if self.distiller is not None:
            views = [View(STAGE, view, image) for image, view in batch.addresses] if self._replayed else None
            result = self.distiller(images, self._task.targets(batch), task, views)
            self.weight_log.add(result.weights)
            total, terms = task + result.loss, result.terms
            if not is_sharded(self.student):
                # DDP waits for a gradient of every parameter, also of a term's that its schedule holds at 0.
                total = total + sum((parameter.sum() for parameter in self.distiller.parameters()), task.new_zeros(())) * 0
        values = {f"train/{name}": value.detach() for name, value in {**losses, **terms}.items()}
        several = self.trainer.world_size > 1
        self.log_dict(values, on_step=False, on_epoch=True, batch_size=len(images), sync_dist=several)
        return total

    def _losses(self, batch: Any, images: Tensor) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = self.student(list(images), batch.targets)
        return losses

    def _held_out_loss(self) -> Tensor:
        """The student's own loss on a held-out batch, of which it keeps nothing."""
        assert self._held_out is not None
        batch = self.transfer_batch_to_device(self._held_out.draw(self.global_step), self.device, 0)
        with holding_statistics(self.student):
            return _sum(self._losses(batch, self._task.inputs(batch)))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """The student's parameters and the distiller's in one optimizer."""
        modules = [self.student] if self.distiller is None else [self.student, self.distiller]
        optimizer = make_optimizer(modules, self._optim)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = make_schedule(optimizer, self._optim, steps, self.trainer.max_epochs or 1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Do what sharding leaves to be done."""
        if is_sharded(self.student):
            complete_gradients(self.student, self.distiller)

    def configure_gradient_clipping(self, *_: Any, **__: Any) -> None:
        """Clip the student's gradient by its norm, and the aligners' apart, so that theirs cannot shrink the student's."""
        if self._optim.clip is not None:
            for module in (self.student, self.distiller):
                if module is not None:
                    clip_gradients(list(module.parameters()), self._optim.clip)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Part what is the student's from what is the distiller's."""
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = _below(state, _STUDENT)
        checkpoint["distiller"] = _below(state, _DISTILLER)
        checkpoint["distill_weights"] = self.weight_log.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put together again what :meth:`on_save_checkpoint` has parted."""
        parts = {_STUDENT: checkpoint["state_dict"], _DISTILLER: checkpoint["distiller"]}
        checkpoint["state_dict"] = {
            f"{prefix}{name}": value for prefix, part in parts.items() for name, value in part.items()
        }
        self.weight_log.epochs[:] = checkpoint["distill_weights"]


def _sum(losses: Mapping[str, Tensor]) -> Tensor:
    return torch.stack([loss.float() for loss in losses.values()]).sum()


def _below(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}

"""What ultralytics' trainers need to distil, as a layer over any of them.

ultralytics keeps its augmentation, EMA, schedules, checkpoints and resume. The layer adds the distillation terms behind the
task loss, the aligners in the optimizer, and what a resumed distillation needs beside the checkpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn

from detkd.adapters.ultralytics import load_yolo
from detkd.engines.averaging import WeightAverage
from detkd.engines.resuming.ultralytics import STRIPPED, read_state, remove_other_states, state_file
from detkd.engines.weight_log import WeightLog
from detkd.errors import WeightsError, one_line
from detkd.files import replacing
from detkd.types import Targets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from detkd.distiller import Distiller


class DistillationCriterion:
    """ultralytics' criterion with the distillation terms behind it.

    ultralytics multiplies its loss by the batch size; the terms are, too, so that weights keep their meaning.
    """

    def __init__(self, task: Any, distiller: Distiller, log: WeightLog) -> None:
        self._task = task
        self._distiller = distiller
        self._log = log

    def __call__(self, preds: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss vector of ultralytics with one more entry, and the named values of all terms."""
        images = batch["img"]
        size = images.shape[0]
        if hasattr(self._task, "o2m"):  # an end-to-end model moves from one of its heads to the other
            self._distiller.weigh_heads((self._task.o2m, self._task.o2o))
        task, items = self._task(preds, batch)
        result = self._distiller(images, padded_targets(batch), task.sum() / size, batch.get("views"))
        self._log.add(result.weights)
        return torch.cat((task, result.loss[None] * size)), {**items, **result.terms}

    def update(self) -> None:
        """Pass the end of an epoch on to a criterion that counts them (end-to-end heads)."""
        if hasattr(self._task, "update"):
            self._task.update()


def padded_targets(batch: Mapping[str, Tensor]) -> Targets:
    """The labels of an ultralytics batch, padded to the largest count of an image."""
    images = batch["img"]
    owner = batch["batch_idx"].view(-1).long().to(images.device)
    order = owner.argsort(stable=True)
    owner = owner[order]
    counts = torch.bincount(owner, minlength=images.shape[0])
    place = torch.arange(len(owner), device=owner.device) - (counts.cumsum(0) - counts)[owner]
    centre, side = batch["bboxes"].view(-1, 4).to(images.device)[order].split(2, -1)
    height, width = images.shape[2:]
    pixels = torch.tensor([width, height, width, height], device=images.device)
    largest = int(counts.max())
    boxes = torch.zeros(images.shape[0], largest, 4, device=images.device)
    boxes[owner, place] = torch.cat((centre - side / 2, centre + side / 2), -1).float() * pixels
    classes = torch.full((images.shape[0], largest), -1, device=images.device)
    classes[owner, place] = batch["cls"].view(-1).long().to(images.device)[order]
    return Targets(boxes, classes)


def compiled_body(model: Any, mode: str | bool) -> Callable[..., Any]:
    """A replacement of the model's `_predict_once` that compiles all layers before the head.

    The head stays out of the graph: where one compiled function returned both features and predictions, the predictions
    would no longer depend on the features in autograd's eyes, and no gradient could be measured between them.
    """

    def body(x: Any) -> list[Tensor]:
        outputs: list[Any] = []
        for layer in model.model[:-1]:
            if layer.f != -1:
                x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
            x = layer(x)
            outputs.append(x if layer.i in model.save else None)
        return [x if j == -1 else outputs[j] for j in model.model[-1].f]

    fast = torch.compile(body, mode="default" if mode is True else str(mode))

    def predict_once(x: Tensor, profile: bool = False, embed: Any = None, **_: Any) -> Any:
        return model.model[-1](fast(x))

    return predict_once


def distilling(
    base: Any, make_distiller: Callable[[Any, nn.Module], Distiller], decays: Sequence[float | None] = ()
) -> Any:
    """Subclass one of ultralytics' trainers so that its student also learns from a teacher.

    Args:
        base: A trainer that saves its checkpoints whole, see :func:`detkd.engines.resuming.ultralytics.saving_whole`.
        make_distiller: Called once with the trainer and its student, when the optimizer is built.
        decays: Of each teacher that is a moving average of the student's weights its decay, None of the others. It is one
            of detkd's own: ultralytics' average keeps so much for so long that it would teach what was forgotten.

    Returns:
        The class; its arguments and everything else are `base`'s own.
    """
    from ultralytics.utils import LOGGER
    from ultralytics.utils.torch_utils import unwrap_model

    class DistillingTrainer(base):  # type: ignore[misc]
        """A trainer of ultralytics with a distiller behind its task loss."""

        distiller: Distiller
        averages: list[WeightAverage]

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.weight_log = WeightLog()
            self.compile_mode: str | bool = False
            super().__init__(*args, **kwargs)
            # The last event before the first epoch: the EMA has its copy, so hooks stay out of every checkpoint.
            self._listen("on_pretrain_routine_end", DistillingTrainer.start_distilling)
            self._listen("on_train_epoch_start", DistillingTrainer.tell_epoch)
            self._listen("on_train_batch_end", DistillingTrainer.tell_step)
            self._listen("on_train_epoch_end", DistillingTrainer.close_epoch)
            self._listen("teardown", DistillingTrainer.stop_distilling)

        def _listen(self, event: str, callback: Callable[[Any], None]) -> None:
            """Add a callback, once: ultralytics' launcher of several processes hands those of one trainer to another."""
            if all(getattr(other, "__qualname__", "") != callback.__qualname__ for other in self.callbacks[event]):
                self.add_callback(event, callback)

        def _setup_train(self) -> None:
            # Set aside, or ultralytics would compile the head together with the rest; see compiled_body.
            self.compile_mode, self.args.compile = self.args.compile, False
            super()._setup_train()

        def build_optimizer(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            """Add the parameters of aligners and losses to the optimizer as a group of their own."""
            self.distiller = make_distiller(self, unwrap_model(model)).to(self.device)
            for teacher in self.distiller.teachers:
                teacher.to(self.device)
            optimizer = super().build_optimizer(model, *args, **kwargs)
            parameters = list(self.distiller.parameters())
            for parameter in parameters if self.world_size > 1 else ():
                distributed.broadcast(parameter.data, src=0)  # each process draws its own
            if parameters:
                # As the student's weights, or torch's own defaults would hold for them.
                groups = {group.get("param_group"): group for group in reversed(optimizer.param_groups)}
                like = groups.get("weight", optimizer.param_groups[0])
                settings = {key: value for key, value in like.items() if key != "params"}
                optimizer.add_param_group({**settings, "params": parameters, "param_group": "aligner"})
            pairs = zip(self.distiller.teachers, decays, strict=False)
            student = unwrap_model(model)
            self.averages = [WeightAverage(student, decay, teacher) for teacher, decay in pairs if decay is not None]
            return optimizer

        def start_distilling(self) -> None:
            """Put the distillation terms behind the task loss of the model that trains."""
            if self.resume:
                self._load_distiller(state_file(self.wdir, self.start_epoch - 1))
            self.distiller.attach()
            model: Any = unwrap_model(self.model)
            # A resumed end-to-end head has its criterion already, with the epochs it counts.
            task = getattr(model, "criterion", None) or model.init_criterion()
            model.criterion = DistillationCriterion(task, self.distiller, self.weight_log)
            if self.compile_mode:
                model._predict_once = compiled_body(model, self.compile_mode)

        def tell_epoch(self) -> None:
            """Tell the schedules which epoch begins."""
            self.distiller.epoch, self.distiller.epochs = float(self.epoch), float(self.epochs)

        def tell_step(self) -> None:
            """Tell the schedules that one more batch has passed."""
            self.distiller.epoch += 1 / len(self.train_loader)

        def close_epoch(self) -> None:
            """Keep the epoch's weights; after the first one, say what had to be held back."""
            self.weight_log.close_epoch()
            if len(self.weight_log.epochs) == 1:
                for line in self.distiller.held_back():
                    LOGGER.warning(line)

        def stop_distilling(self) -> None:
            """Remove the hooks."""
            if hasattr(self, "distiller"):
                self.distiller.detach()

        def optimizer_step(self) -> None:
            """Average the aligners' gradients over all processes: they lie outside of the model that DDP wraps."""
            if self.world_size > 1:
                for parameter in self.distiller.parameters():
                    if parameter.grad is None:
                        parameter.grad = torch.zeros_like(parameter)
                    distributed.all_reduce(parameter.grad)
                    parameter.grad /= self.world_size
            super().optimizer_step()
            for average in self.averages:
                average.update(unwrap_model(self.model), average.steps + 1)

        def _load_checkpoint_state(self, ckpt: Any) -> None:
            """Go back as ultralytics does, which copies the model for its average, also in the midst of training."""
            model: Any = unwrap_model(self.model)
            own = {name: vars(model).pop(name) for name in ("criterion", "_predict_once") if name in vars(model)}
            distils = isinstance(own.get("criterion"), DistillationCriterion)
            if distils:
                self.distiller.detach()
            super()._load_checkpoint_state(ckpt)
            vars(model).update(own)
            if distils:
                self.distiller.attach()

        def _handle_nan_recovery(self, epoch: int) -> bool:
            """Take the aligners back to the checkpoint, too."""
            recovered = bool(super()._handle_nan_recovery(epoch))
            if recovered:
                self._load_distiller(state_file(self.wdir, epoch - 1))
            return recovered

        def final_eval(self) -> None:
            """Do as the base does; a run that was cut short after its training has its weights in a file alone."""
            if not self.weight_log.epochs and self.last.exists():
                state = state_file(self.wdir, load_yolo(self.last).ckpt.get("epoch", STRIPPED))
                if state.exists():
                    self.weight_log.epochs[:] = read_state(state)["weights"]
            super().final_eval()

        def save_model(self) -> bool:
            """Save as the base does, and beside it what a resumed distillation needs."""
            state = state_file(self.wdir, self.epoch)
            with replacing(state) as path:
                averages = [average.state_dict() for average in self.averages]
                kept = {"distiller": self.distiller.state_dict(), "weights": self.weight_log.epochs, "averages": averages}
                torch.save(kept, path)
            self.args.compile = self.compile_mode  # as it was asked for: resuming reads it from the checkpoint
            try:
                saved = super().save_model()
            finally:
                self.args.compile = False
            remove_other_states(self.wdir, self.epoch)  # only after the checkpoint that the old one belongs to is replaced
            return bool(saved)

        def _load_distiller(self, path: Path) -> None:
            saved = read_state(path)
            try:
                self.distiller.load_state_dict(saved["distiller"])
                for average, state in zip(self.averages, saved.get("averages", ()), strict=True):
                    average.load_state_dict(state)
            except (RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
                raise WeightsError(f"Expected {path} to hold the aligners of this run, but: {one_line(error)}") from error
            self.weight_log.epochs[:] = saved["weights"]

    return cast("Any", DistillingTrainer)

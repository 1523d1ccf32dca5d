"""A few steps of the very training that a run would do, watched from outside.

The run's own engine trains the run's own student; nothing here repeats what it does. What is seen comes from three hooks:
behind the optimizer's step, behind the distiller, and behind the balance, where the task loss and each term still have
their graph.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

from detkd.adapters.hooked import Hooked
from detkd.engines.families import FAMILIES
from detkd.errors import DetkdError
from detkd.report.reporter import SILENT, reporting

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor, nn
    from torch.optim import Optimizer

    from detkd.config import RunConfig
    from detkd.distiller import Distiller


class _EnoughError(BaseException):
    """Ends a training from inside; no engine mends what is no ``Exception``."""


@dataclass
class Observation:
    """What was seen in some steps.

    Attributes:
        seconds: Of a batch, from each step of the optimizer to the next, without what watching took.
        task: Norm of the task loss's gradient at the student's parameters, of each batch.
        places: Norm of the task loss's gradient at the student's features, of each batch; the least of all terms' features.
        norms: The gradients' norms at the parameters of each term, unweighted.
        pulls: Norm of each weighted term's gradient as a multiple of the task's, at the student's features, where
            :class:`detkd.balance.GradientRatio` measures it, too.
        cosines: Cosine between the gradients of a term and of the task at the student's parameters.
        calls: For each batch how often each watched module has run: of the student, then of each teacher.
        left_out: Parameters of aligners, losses and balance that no optimizer holds.
        unmoved: Those of them that never had a gradient, though held.
        failure: Why the training ended; None where it went on.
    """

    seconds: list[float] = field(default_factory=list)
    task: list[float] = field(default_factory=list)
    places: list[float] = field(default_factory=list)
    norms: dict[str, list[float]] = field(default_factory=dict)
    pulls: dict[str, list[float]] = field(default_factory=dict)
    cosines: dict[str, list[float]] = field(default_factory=dict)
    calls: list[list[dict[str, int]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    unmoved: list[str] = field(default_factory=list)
    failure: Exception | None = None


def observe(
    student: nn.Module,
    distiller: Distiller | None,
    config: RunConfig,
    dataset: Any,
    *,
    steps: int,
    seconds: float = math.inf,
) -> Observation:
    """Train some steps in a folder that is thrown away, and watch.

    Args:
        student: The student, which learns from it.
        distiller: Its distiller, or None where it trains alone.
        config: The run.
        dataset: Its data.
        steps: Steps of the optimizer after which to stop.
        seconds: After which to stop, but not before the first step.
    """
    watch = _Watch(student, distiller, steps, time.monotonic() + seconds)
    engine = FAMILIES[config.family].engine
    try:
        with tempfile.TemporaryDirectory() as name, reporting(SILENT), watch.installed():
            engine.train(student, distiller, config, dataset, Path(name, config.name), resume=False)
    except _EnoughError:
        pass
    except (DetkdError, torch.OutOfMemoryError) as error:
        watch.found.failure = error
    finally:
        if distiller is not None:
            distiller.detach()
    watch.found.unmoved = sorted(watch.held - watch.moved)
    return watch.found


class _Watch:
    """The hooks, and what they see."""

    def __init__(self, student: nn.Module, distiller: Distiller | None, steps: int, end: float) -> None:
        self.found = Observation()
        self.held: set[str] = set()
        self.moved: set[str] = set()
        self._student, self._distiller, self._steps, self._end = student, distiller, steps, end
        self._done, self._batches, self._watching, self._epoch = 0, 0, 0.0, 0
        self._last: float | None = None
        self._calls = self._count()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """The hooks for a while."""
        handles = [register_optimizer_step_post_hook(self._after_step)]
        if self._distiller is not None:
            handles += [
                self._distiller.register_forward_hook(self._after_batch),
                self._distiller.balance.register_forward_hook(self._after_balance),
            ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _after_balance(self, module: nn.Module, inputs: tuple[Any, ...], weights: Mapping[str, Tensor]) -> None:
        """Measure the gradients of the task loss and of each term, at the student's features and at its parameters."""
        begin = time.monotonic()
        task_loss, terms, features = inputs
        parameters = [parameter for parameter in self._student.parameters() if parameter.requires_grad]
        task = _gradient(task_loss, parameters)
        norm = float(task.norm())
        met = {name: tuple(map(id, features[name])) for name in terms}
        where = {place: features[name] for name, place in met.items()}  # mostly one for all terms
        places = {place: float(_gradient(task_loss, own).norm()) for place, own in where.items()}
        self.found.task.append(norm)
        self.found.places.append(min(places.values()))
        for name, value in terms.items():
            own = _gradient(value, parameters)
            size = float(own.norm())
            self.found.norms.setdefault(name, []).append(size)
            if places[met[name]] > 0:
                pull = float(weights[name]) * float(_gradient(value, features[name]).norm()) / places[met[name]]
                self.found.pulls.setdefault(name, []).append(pull)
            if norm > 0 and size > 0:
                self.found.cosines.setdefault(name, []).append(float(own @ task) / (size * norm))
        self._watching += time.monotonic() - begin

    def _after_batch(self, *_: Any) -> None:
        self._batches += 1
        now = self._count()
        self.found.calls.append(
            [
                {path: count - before[path] for path, count in own.items()}
                for own, before in zip(now, self._calls, strict=True)
            ]
        )
        self._calls = now

    def _count(self) -> list[dict[str, int]]:
        adapters = () if self._distiller is None else self._distiller.adapters
        return [adapter.calls if isinstance(adapter, Hooked) else {} for adapter in adapters]

    def _after_step(self, optimizer: Optimizer, *_: Any) -> None:
        """Look at what the optimizer holds, and end the training after enough steps."""
        now = time.monotonic()
        epoch = 0 if self._distiller is None else int(self._distiller.epoch + 1e-6)
        if self._last is not None and epoch == self._epoch:  # or a validation would lie between
            self.found.seconds.append((now - self._last - self._watching) / max(self._batches, 1))
        self._look_at(optimizer.param_groups)
        self._last, self._epoch, self._watching, self._batches = time.monotonic(), epoch, 0.0, 0
        self._done += 1
        if self._done >= self._steps or now >= self._end:
            raise _EnoughError

    def _look_at(self, groups: Sequence[Mapping[str, Any]]) -> None:
        held = {id(parameter) for group in groups for parameter in group["params"]}
        named = {} if self._distiller is None else dict(self._distiller.named_parameters())
        self.found.left_out = sorted(name for name, parameter in named.items() if id(parameter) not in held)
        self.held = {name for name, parameter in named.items() if id(parameter) in held}
        gradients = {name: named[name].grad for name in self.held}
        self.moved |= {name for name, gradient in gradients.items() if gradient is not None and bool(gradient.any())}


def _gradient(loss: Tensor, where: Sequence[Tensor]) -> Tensor:
    """The gradient of a scalar as one vector over some tensors; a constant has none."""
    found = (
        torch.autograd.grad(loss, where, retain_graph=True, allow_unused=True)
        if loss.requires_grad
        else [None] * len(where)
    )
    pairs = zip(where, found, strict=True)
    return torch.cat([(own.new_zeros(own.shape) if one is None else one).float().flatten() for own, one in pairs])

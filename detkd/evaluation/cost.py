"""What a model costs to run."""

from __future__ import annotations

import math
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from detkd.modes import evaluating

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor, nn

WARM_UP = 3
ROUNDS = 15


@dataclass(frozen=True)
class ModelCost:
    """Size and speed of a model.

    Attributes:
        parameters: Number of parameters.
        gflops: 10⁹ floating-point operations of one forward pass on one image; a multiply-add counts as two.
        cpu_ms: Median milliseconds of one forward pass on one image, on torch's current number of threads.
    """

    parameters: int
    gflops: float
    cpu_ms: float


def measure_cost(models: Mapping[str, tuple[nn.Module, int]]) -> dict[str, ModelCost]:
    """Measure models side by side on the CPU, in evaluation mode, each on one square image of its own side in pixels.

    A model that takes something else says so in its ``taps``. Their passes take turns, see :func:`median_times`. Training
    modes are restored.
    """
    inputs = {name: _example(model, imgsz) for name, (model, imgsz) in models.items()}
    flops = {}
    with ExitStack() as stack, torch.no_grad():
        for name, (model, _) in models.items():
            stack.enter_context(evaluating(model))
            with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.mkldnn_rnn_layer: _recurrent}) as counter:
                model(inputs[name])
            flops[name] = counter.get_total_flops()
        times = median_times({name: partial(model, inputs[name]) for name, (model, _) in models.items()})
    return {
        name: ModelCost(
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            gflops=flops[name] / 1e9,
            cpu_ms=times[name],
        )
        for name, (model, _) in models.items()
    }


def median_times(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of each call; they take turns, so that noise of the machine hits all of them equally."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(WARM_UP + ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if turn >= WARM_UP:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) * 1e3 for name, values in times.items()}


def _recurrent(inputs: Sequence[int], weights: Sequence[int], recurrent: Sequence[int], *_: Any, **__: Any) -> int:
    """Operations of a recurrent layer in one direction, which torch's counter does not know, from shapes.

    Args:
        inputs: [L, B, D].
        weights: From the input to all gates, [G·H, D].
        recurrent: From the state to all gates, [G·H, H].
    """
    return 2 * math.prod(inputs[:2]) * (math.prod(weights) + math.prod(recurrent))


def _example(model: nn.Module, imgsz: int) -> Tensor:
    """A batch of one: a square picture, unless the model says that it takes something else."""
    taps: Any = getattr(model, "taps", None)
    return torch.zeros(1, 3, imgsz, imgsz) if taps is None else taps.example()

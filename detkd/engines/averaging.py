"""A moving average of a student's weights, for both engines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn


class WeightAverage:
    """A moving average of a model's weights and statistics.

    Its decay grows to the one configured, so that the first weights, which have learnt nothing, are soon forgotten.

    Args:
        student: The model that is averaged, before any hook is installed.
        decay: Share of the average that a step keeps.
        model: A model like the student that becomes the average, such as a teacher; None makes one.

    Attributes:
        steps: Steps that were counted.
    """

    def __init__(self, student: nn.Module, decay: float, model: nn.Module | None = None) -> None:
        self._decay = decay
        self._average = AveragedModel(student, multi_avg_fn=self._average_tensors, use_buffers=True)
        if model is not None:
            self._average.module = model
        self.steps = 0

    @property
    def model(self) -> nn.Module:
        """The average, a model of its own."""
        model: nn.Module = self._average.module
        return model

    def to(self, device: torch.device) -> None:
        """Bring it to a device."""
        self._average.to(device)

    def update(self, student: nn.Module, steps: int) -> None:
        """Count the student's weights in.

        Args:
            student: What it has come to.
            steps: Steps that it has made.
        """
        self.steps = steps
        self._average.update_parameters(student)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs."""
        return {"average": self._average.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from :meth:`state_dict`."""
        self._average.load_state_dict(state["average"])
        self.steps = state["steps"]

    def _average_tensors(self, averages: Any, news: Any, count: Any) -> None:
        decay = min(self._decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(
            [_own_part(tensor) for tensor in averages], [_own_part(tensor) for tensor in news], count
        )


def _own_part(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: of a sharded student and its average the same part, and others whole."""
    part: Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part

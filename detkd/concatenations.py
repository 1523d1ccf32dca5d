"""Which convolutions of a model read several maps as one, and how wide each of these is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SIDE = 256  # pixels of the picture that a YOLO is tried on


def joined_inputs(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Find the convolutions that read a concatenation, in a U-Net or in the layers of a YOLO before its head.

    These run on tensors without values, which shows what reads what, however a block is written.

    Args:
        model: A segmenter, or a model of ultralytics. Its tensors and its mode stay as they are.

    Returns:
        Names of the convolutions' weights, and the channels of each map that was joined. Nothing for other models: they add
        features.
    """
    network, layers = getattr(model, "network", None), getattr(model, "model", None)
    if isinstance(network, nn.Module):
        running, prefix, side = network, "network.", getattr(getattr(model, "architecture", None), "imgsz", SIDE)
    elif isinstance(layers, nn.Sequential) and all(hasattr(layer, "f") for layer in layers):
        running, prefix, side = _Body(layers), "", SIDE
    else:
        return {}
    values = {name: value.to("meta") for name, value in (*running.named_parameters(), *running.named_buffers())}
    first = next(value for value in values.values() if value.ndim == 4)
    with _Watch() as watch:
        functional_call(running, values, (torch.empty(2, first.shape[1], side, side, dtype=first.dtype, device="meta"),))
    names = {id(value): name for name, value in values.items()}
    return {prefix + names[id(weight)]: parts for weight, parts in watch.readers}


class _Body(nn.Module):
    """The layers of a YOLO before its head, which reads them one by one."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.model = layers[:-1]

    def forward(self, image: Tensor) -> None:
        outputs: list[Any] = []
        for layer in self.model:
            sources: Any = layer.f
            maps = outputs or [image]
            given = maps[sources] if isinstance(sources, int) else [maps[source] for source in sources]
            outputs.append(layer(given))


class _Watch(TorchFunctionMode):
    """Notes what is concatenated along channels, and the weights of convolutions that read it.

    Attributes:
        readers: Such a weight, and the channels of each part of what it reads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.readers: list[tuple[Tensor, tuple[int, ...]]] = []
        self._parts: dict[int, tuple[Tensor, tuple[int, ...]]] = {}  # with the tensor, lest another one gets its id

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run a function of torch, and look at what went in and came out."""
        output = func(*args, **(kwargs or {}))
        given: Any = args[0] if args else None
        if func is torch.cat and 1 in (*args[1:], *(kwargs or {}).values()):
            self._parts[id(output)] = output, tuple(size for each in given for size in self._parts_of(each))
        elif isinstance(given, Tensor) and id(given) in self._parts:
            parts = self._parts_of(given)
            if func is F.conv2d:
                if args[1].shape[1] == given.shape[1]:  # of one group
                    self.readers.append((args[1], parts))
            elif isinstance(output, Tensor) and output.shape[1:2] == given.shape[1:2]:  # scaled, pooled, activated
                self._parts[id(output)] = output, parts
        return output

    def _parts_of(self, x: Tensor) -> tuple[int, ...]:
        return self._parts[id(x)][1] if id(x) in self._parts else (x.shape[1],)

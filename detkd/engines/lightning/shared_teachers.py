"""Frozen teachers that are shared out over the processes of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Callback
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Shard

from detkd.engines.lightning.sharding import blocks, split

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pytorch_lightning import LightningModule, Trainer


class SharedTeachers(Callback):
    """Has each process keep a part of every teacher while a student trains; in the end they are whole again.

    Args:
        teachers: Frozen models, the same in all processes.
    """

    def __init__(self, teachers: Sequence[nn.Module]) -> None:
        self._teachers = teachers
        self._blocks: list[SharedBlock] = []

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Share them out, where they have been brought to."""
        mesh = init_device_mesh(pl_module.device.type, (trainer.world_size,))
        self._blocks = [block for teacher in self._teachers for block in share_out(teacher, mesh)]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them together for good: the first process judges them alone, also where nothing was left to train."""
        for block in self._blocks:
            block.restore()
        self._blocks = []


def share_out(model: nn.Module, mesh: DeviceMesh) -> list[SharedBlock]:
    """Share out the blocks of a frozen model; what no block holds stays whole in every process.

    Args:
        model: The same in all processes.
        mesh: The processes.
    """
    shared, taken = [], set[nn.Parameter]()
    for module in blocks(model):
        own = [parameter for parameter in module.parameters() if parameter not in taken and _is_dense(parameter)]
        taken.update(own)
        if own:
            shared.append(SharedBlock(module, own, mesh))
    return shared


class SharedBlock:
    """Parameters of a frozen module that are whole while it runs; in between each process keeps its part of them.

    FSDP's blocks cannot be undone, and a teacher is judged when all is over. This is what is left of them where there is no
    gradient, nor a step of an optimizer.

    The parts are taken when the module has first run: adapters call the parts of a model that they need, and a block that
    is never called stays whole. So does one that is run with gradients, as by ``cross_kd``: its backward pass needs it.

    Args:
        module: The module.
        parameters: Those of it that are shared out, in float32 and dense in memory.
        mesh: The processes.
    """

    def __init__(self, module: nn.Module, parameters: Sequence[nn.Parameter], mesh: DeviceMesh) -> None:
        self._parameters = list(parameters)
        self._mesh = mesh
        self._part: DTensor | None = None
        self._layout: list[tuple[torch.Size, tuple[int, ...], int]] = []
        before = module.register_forward_pre_hook(self._gather, prepend=True)
        self._handles = (before, module.register_forward_hook(self._let_go, always_call=True))

    @property
    def held(self) -> int:
        """Numbers that this process holds while the module does not run."""
        parameters = sum(parameter.numel() for parameter in self._parameters)
        return parameters + (0 if self._part is None else self._part.to_local().numel())

    def restore(self) -> None:
        """Make it whole for good, in all processes at once."""
        self._gather()
        self._stay_whole()

    def _stay_whole(self) -> None:
        self._part = None
        for handle in self._handles:
            handle.remove()

    def _gather(self, *_: Any) -> None:
        if self._part is None:
            return
        whole = self._part.full_tensor()
        for parameter, (shape, stride, start) in zip(self._parameters, self._layout, strict=True):
            parameter.data = whole.as_strided(shape, stride, start)

    def _let_go(self, *_: Any) -> None:
        if torch.is_grad_enabled():
            self._stay_whole()
            return
        if self._part is None:
            self._part = self._take_part()
        for parameter in self._parameters:
            parameter.data = parameter.data.new_empty(0)  # no layer can take it for a weight

    def _take_part(self) -> DTensor:
        """This process's part of all parameters in a row, each as it lies in memory."""
        start = 0
        for parameter in self._parameters:
            self._layout.append((parameter.shape, parameter.stride(), start))
            start += parameter.numel()
        rows = [parameter.data.as_strided((parameter.numel(),), (1,)) for parameter in self._parameters]
        return split(torch.cat(rows), self._mesh, [Shard(0)])


def _is_dense(parameter: nn.Parameter) -> bool:
    """Whether a parameter is of the usual type and fills its memory without gaps."""
    channels_last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return parameter.dtype == torch.float32 and (parameter.is_contiguous() or channels_last)

"""Lightning's strategy for a student that is sharded over the processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytorch_lightning.strategies import DDPStrategy
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from detkd.engines.lightning.sharding import all_whole, part_of, shard_distiller, shard_student

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch.optim import Optimizer


class ShardedStrategy(DDPStrategy):
    """DDP's processes, where each keeps a part of the parameters, of their gradients and of the optimizer's state.

    Lightning's own ``FSDPStrategy`` needs a GPU and is of PyTorch's first FSDP; its ``ModelParallelStrategy`` writes and
    reads checkpoints past our :class:`CheckpointIO <lightning_fabric.plugins.CheckpointIO>`. Here checkpoints are those of
    any other run: they hold whole tensors, and a run goes on from one of any number of processes, sharded or not. Weights
    are read before the models are sharded, the optimizer's state behind that.
    """

    def configure_ddp(self) -> None:
        """Shard the student and the distiller in place of wrapping them."""
        module: Any = self.lightning_module
        mesh = init_device_mesh(self.root_device.type, (self.world_size,))
        shard_student(module.student, mesh)
        if module.distiller is not None:
            shard_distiller(module.distiller, module.student, mesh)

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Write whole tensors, in the first process."""
        super().save_checkpoint(all_whole(checkpoint, keep=self.is_global_zero), filepath, storage_options)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Take this process's part of the state of each parameter."""
        pairs = zip(self.optimizers, checkpoint["optimizer_states"], strict=True)
        states = [_parts(optimizer, state) for optimizer, state in pairs]
        super().load_optimizer_state_dict({**checkpoint, "optimizer_states": states})


def _parts(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    parts = {}
    for index, values in state["state"].items():
        like = parameters[index]
        parts[index] = {
            name: part_of(value, like) if isinstance(like, DTensor) and value.shape == like.shape else value
            for name, value in values.items()
        }
    return {**state, "state": parts}

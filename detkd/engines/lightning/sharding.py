"""Parameters that are shared out over the processes of a run, each of which keeps a part: FSDP2 of PyTorch.

Everything that trains is sharded: where a layer's whole parameters are needed they are gathered, and let go of again, and
its gradients are averaged over the processes into each one's part. Outside of the layers a parameter is a ``DTensor``: it
has the shape of the whole one, and holds the process's part of it.

Source:
    Zhao et al.: PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, VLDB 2023, arXiv:2304.11277.
"""

from __future__ import annotations

import copy
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import Placement

# A block holds at least this share of a model. Each is gathered by itself, so that beside the parts of all a process holds
# one whole at a time; of smaller ones there would be many, and a message takes its time however short it is.
BLOCK = 1 / 32


def is_sharded(model: nn.Module) -> bool:
    """Whether :func:`shard_student` has been at work on a model."""
    return isinstance(model, FSDPModule)


def shard_student(student: nn.Module, mesh: DeviceMesh) -> None:
    """Share out a student's parameters, which is called as a whole.

    Args:
        student: It starts as that of the first process; its parameters become parts, under the names that they had.
        mesh: The processes.
    """
    student.to(memory_format=torch.contiguous_format)  # parts are rows of memory
    _start_alike(student)
    scalars = _scalars(student)
    for block in blocks(student):
        block.register_forward_hook(_in_own_memory)
        fully_shard(block, mesh=mesh, ignored_params=scalars)
    fully_shard(student, mesh=mesh, ignored_params=scalars)


def shard_distiller(distiller: nn.Module, student: nn.Module, mesh: DeviceMesh) -> None:
    """Share out the parameters of a distiller: its aligners', and what its losses learn.

    Each of its layers is a block of its own: there are few, and they are called by themselves. The distiller as a whole is
    none: it takes all that the student has said, and where a block is entered, autograd ties its inputs together.

    Args:
        distiller: It starts as that of the first process.
        student: Its student, sharded.
        mesh: The processes.
    """
    _start_alike(distiller)
    scalars = _scalars(distiller)
    for layer in reversed(list(distiller.modules())):  # those inside first
        if set(layer.parameters(recurse=False)) - scalars:
            fully_shard(layer, mesh=mesh, ignored_params=scalars)
    assert isinstance(student, FSDPModule)
    # A balance takes gradients on the way: the backward pass behind it still needs what that has gathered.
    distiller.register_forward_pre_hook(lambda *_: student.set_reshard_after_backward(False))
    distiller.register_forward_hook(lambda *_: student.set_reshard_after_backward(True), always_call=True)


def blocks(model: nn.Module) -> list[nn.Module]:
    """The smallest modules with layers of their own that hold a share of a model each, those inside before those around.

    What no block holds stays with the model as a whole, and is gathered for all of a step. Single layers are no blocks:
    some models read the weights of a layer without calling it, which gathers nothing. Neither are bare lists of modules,
    which are never called, nor modules whose parameters are another's, too.

    Args:
        model: The model, which is none itself.
    """
    places = Counter(parameter for _, parameter in model.named_parameters(remove_duplicate=False))
    shared = {parameter for parameter, count in places.items() if count > 1}
    least = BLOCK * sum(parameter.numel() for parameter in places)
    found: list[nn.Module] = []

    def left(module: nn.Module) -> int:
        """Parameters of a module that no block inside it holds."""
        count = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        inside = list(module.children())
        count += sum(left(child) for child in inside)
        called = type(module).forward is not nn.Module.forward
        if count < least or not inside or not called or module is model or shared & set(module.parameters()):
            return count
        found.append(module)
        return 0

    left(model)
    return found


def shard_like(model: nn.Module, other: nn.Module) -> None:
    """Keep of a model that is not called the parts that another one of its kind has of its own, if it is sharded.

    Args:
        model: Such as an average of the other's weights.
        other: The other.
    """
    for own, module in zip(model.modules(), other.modules(), strict=True):
        for (name, value), like in zip(own.named_parameters(recurse=False), module.parameters(recurse=False), strict=True):
            if isinstance(like, DTensor):
                setattr(own, name, nn.Parameter(part_of(value.detach(), like), requires_grad=value.requires_grad))


def part_of(value: Tensor, like: DTensor) -> DTensor:
    """This process's part of a tensor that all have, split as another one of its shape is."""
    return split(value.to(like.device).contiguous(), like.device_mesh, like.placements)


def split(value: Tensor, mesh: DeviceMesh, placements: Sequence[Placement]) -> DTensor:
    """This process's part of a contiguous tensor that all have."""
    # A copy, or the part would hold on to the memory of the whole.
    return cast("DTensor", distribute_tensor(value, mesh, placements, src_data_rank=None).clone())


def whole(value: Tensor) -> Tensor:
    """A tensor put together from the parts that the processes have, each of which must ask for it; others as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def all_whole(tree: Any, *, keep: bool) -> Any:
    """A tree of dicts and lists with its tensors put together.

    Args:
        tree: In all processes of the same form.
        keep: Whether this process wants them, in its own memory; otherwise its tree has None there.
    """
    if isinstance(tree, dict):
        return {key: all_whole(value, keep=keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(all_whole(value, keep=keep) for value in tree)
    if isinstance(tree, DTensor):
        tensor = whole(tree.detach())
        return tensor.cpu() if keep else None
    return tree


class WholeCopy:
    """A model to judge and to keep, while the one that it is a copy of is sharded.

    Processes have unlike numbers of pictures to judge: each must be able to run the model without the others.

    Args:
        source: The model, not sharded yet.

    Attributes:
        model: The copy, outside of the device's memory until it is judged.
    """

    def __init__(self, source: nn.Module) -> None:
        self._source = source
        self.model = copy.deepcopy(source).cpu()

    def judging(self, judge: Callable[[nn.Module], Mapping[str, float]]) -> Callable[[nn.Module], Mapping[str, float]]:
        """What judges the copy, as far as the model has come; all processes must ask it at once.

        Args:
            judge: What judges a whole model.
        """

        def fill_and_judge(model: nn.Module) -> Mapping[str, float]:
            self._fill(model)
            metrics = judge(model)
            model.cpu()
            return metrics

        return fill_and_judge

    @torch.no_grad()
    def _fill(self, model: nn.Module) -> None:
        parameters = list(self._source.parameters())
        model.to(parameters[0].device)
        sources = chain(parameters, self._source.buffers())
        for own, source in zip(chain(model.parameters(), model.buffers()), sources, strict=True):
            own.copy_(whole(source))


def complete_gradients(student: nn.Module, distiller: nn.Module | None) -> None:
    """Before a step of the optimizer, bring about what only DDP would have done.

    Parameters that are single numbers cannot be shared out: their gradients are averaged over the processes. What the
    distiller learns has a gradient of 0 where its term is held at 0.
    """
    own = [] if distiller is None else list(distiller.parameters())
    for parameter in own:
        if parameter.requires_grad and parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for parameter in (*student.parameters(), *own):
        if parameter.grad is not None and not isinstance(parameter, DTensor):
            distributed.all_reduce(parameter.grad)
            parameter.grad /= distributed.get_world_size()


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Scale gradients down to a norm of all of them together, as ``clip_grad_norm_`` does of tensors of one kind.

    Args:
        parameters: Whole ones, parts, or both.
        limit: The largest norm.
    """
    kinds = [[p for p in parameters if p.grad is not None and isinstance(p, DTensor) is part] for part in (True, False)]
    kinds = [kind for kind in kinds if kind]
    norms = [whole(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])) for kind in kinds]
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, limit, norms[0] if len(norms) == 1 else torch.stack(norms).norm())


def are_mixed(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether some of the parameters are sharded and others are not, of which no operation can take one list."""
    return len({isinstance(parameter, DTensor) for parameter in parameters}) > 1


def _start_alike(model: nn.Module) -> None:
    """Give all processes what the first one has, as DDP does."""
    for tensor in chain(model.parameters(), model.buffers()):
        distributed.broadcast(tensor.detach(), src=0)


def _in_own_memory(module: nn.Module, inputs: Any, output: Any) -> Any:
    """Copy what a block returns in another tensor's memory: an in-place operation on a view drops FSDP's hook on it."""
    del module, inputs
    return tree_map(lambda value: value.clone() if isinstance(value, Tensor) and value._is_view() else value, output)


def _scalars(model: nn.Module) -> set[nn.Parameter]:
    """Parameters that are single numbers."""
    return {parameter for parameter in model.parameters() if parameter.ndim == 0}

"""Definition of the fused ops in torch: schema, fake, and plain PyTorch where the extension is not built.

Every fused op returns its loss and, where asked, the student's gradient that was computed on the way; backward, which
csrc/ops/autograd.cpp registers, has only to multiply it by the incoming gradient. A float16 gradient comes from the op
without the division by the number of positions: it would sink below the type's range before a loss scale could lift it.
Backward divides.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from detkd.ops._common import promote
from detkd.ops._extension import load_error, note_kernels, use_fused

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from detkd.types import Backend

_library = torch.library.Library("detkd", "FRAGMENT")


def define(
    name: str, arguments: str, reference: Callable[..., Tensor], loss_shape: Callable[..., tuple[int, ...]]
) -> Callable[..., Tensor]:
    """Define ``torch.ops.detkd.<name>(student, teacher, <arguments>, with_gradient) -> (loss, gradient)``.

    Args:
        name: The op's name.
        arguments: Its arguments between `teacher` and `with_gradient`, in the language of torch's schemas.
        reference: The same in plain PyTorch: takes all arguments but the last, returns the loss.
        loss_shape: Shape of the loss, from the same arguments.

    Returns:
        ``run(backend, student, teacher, *arguments)``: the loss, from the kernel or the reference as `backend` asks.
    """
    _library.define(
        f"{name}(Tensor student, Tensor teacher, {arguments}, bool with_gradient) -> (Tensor, Tensor)",
        tags=(torch.Tag.pt2_compliant_tag,),
    )

    def fake(*inputs: Any) -> tuple[Tensor, Tensor]:
        student, with_gradient = inputs[0], inputs[-1]
        loss = student.new_empty(loss_shape(*inputs[:-1]), dtype=torch.float32)
        return loss, torch.empty_like(student) if with_gradient else student.new_empty(0)

    def plain(*inputs: Any) -> tuple[Tensor, Tensor]:
        loss = reference(*inputs[:-1])
        if not inputs[-1]:
            return loss, inputs[0].new_empty(0)
        with torch.enable_grad():
            student = inputs[0].detach().requires_grad_()
            (gradient,) = torch.autograd.grad(reference(student, *inputs[1:-1]).sum(), student)
        return loss, gradient

    note_kernels(name)
    if load_error() is None:
        torch.library.register_fake(f"detkd::{name}", fake, lib=_library)
    else:  # differentiable as it is
        _library.impl(name, plain, "CompositeImplicitAutograd")
    op = getattr(torch.ops.detkd, name)

    def run(backend: Backend, student: Tensor, teacher: Tensor, *others: Any) -> Tensor:
        student, teacher = promote(student, teacher.detach())
        if use_fused(name, backend, student, teacher):
            loss: Tensor = op(student, teacher, *others, student.requires_grad and torch.is_grad_enabled())[0]
            return loss
        return reference(student, teacher, *others)

    return run


_library.define("scale_(Tensor(a!) gradient, Tensor factor) -> ()", tags=(torch.Tag.pt2_compliant_tag,))
torch.library.register_fake("detkd::scale_", lambda gradient, factor: None, lib=_library)

"""What every loss keeps to, whatever it computes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from detkd import losses
from detkd.errors import ArgumentError
from detkd.ops._common import accumulate

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

Loss = "Callable[[Tensor, Tensor], Tensor]"

BOXES = torch.tensor([[2.0, 2.0, 9.0, 11.0], [4.0, 1.0, 8.0, 3.0], [0.0, 0.0, 6.0, 6.0], [5.0, 5.0, 16.0, 12.0]])
LABELS = torch.tensor([[[1.0, 1.0, 9.0, 9.0]], [[0.0, 0.0, 0.0, 0.0]]])


def module(kind: type[torch.nn.Module], *rest: object, **arguments: object) -> Loss:
    """A loss with trained or random parts: built anew from a seed on every call."""

    def call(student: Tensor, teacher: Tensor) -> Tensor:
        state = torch.random.get_rng_state()
        torch.manual_seed(5)
        try:
            built = kind(student.shape[1], **arguments).to(torch.promote_types(student.dtype, torch.float32))
            return built(student, teacher, *rest)
        finally:
            torch.random.set_rng_state(state)

    return call


def placed(logits: Tensor) -> tuple[Tensor, Tensor]:
    """A box for each anchor of [B, C, A], moved by the logits so that it carries their gradient; and the unmoved one."""
    batch, _, anchors = logits.shape
    boxes = BOXES.repeat(anchors // len(BOXES) + 1, 1)[:anchors].expand(batch, -1, -1)
    return boxes + accumulate(logits).sum(1)[..., None].clamp(-2, 2), boxes


def boxed(function: Callable[..., Tensor]) -> Loss:
    """A loss on logits and boxes; the boxes come from the same numbers."""
    return lambda student, teacher: function(student, teacher, *placed(student))


def rows(logits: Tensor) -> Tensor:
    """[B, C, A] as one row of classes for each anchor of each image."""
    return logits.transpose(1, 2).reshape(-1, logits.shape[1])


def labelled_rows(student: Tensor, teacher: Tensor) -> Tensor:
    """DKD, each row of another class and every thirteenth left out."""
    labels = torch.arange(student.shape[0] * student.shape[-1]) % (student.shape[1] + 1) - 1
    return losses.dkd(rows(student), rows(teacher), labels)


def refined(student: Tensor, teacher: Tensor) -> Tensor:
    """Boxes of both models, refined from the same proposals, every third of which is background."""
    (own, proposals), (other, _) = placed(student), placed(teacher)
    proposals = proposals.reshape(-1, 4)
    labels = torch.arange(len(proposals)) % 3
    return losses.bounded_box(own.reshape(-1, 4), other.reshape(-1, 4), proposals + 0.5, proposals, labels)


def detected(teacher: Tensor) -> tuple[Tensor, Tensor]:
    """A teacher's logits as detections: boxes [B, N, 4] and scores [B, N, C]."""
    return placed(teacher)[1], accumulate(teacher).sigmoid().transpose(1, 2)


def anchored(student: Tensor, teacher: Tensor) -> Tensor:
    """A dense student and a teacher of another family."""
    boxes, start = placed(student)
    points = (start[:1, :, :2] + start[:1, :, 2:]).sum(0) / 2
    return losses.detection_label(student, boxes, points, *detected(teacher))


def proposed(student: Tensor, teacher: Tensor) -> Tensor:
    """A second stage whose background is the first of the classes, and a teacher of another family."""
    boxes, proposals = placed(student)
    images = torch.arange(len(student)).repeat_interleave(student.shape[-1])
    found, scores = detected(teacher)
    return losses.region_label(
        rows(student), boxes.reshape(-1, 1, 4), proposals.reshape(-1, 4), images, found, scores[..., 1:]
    )


def region(student: Tensor, teacher: Tensor) -> Tensor:
    """LD on four sides of three bins."""
    weight = torch.linspace(0.1, 1, student.shape[-1]).expand(student.shape[0], -1)
    sides = (s.unflatten(1, (4, -1)) for s in (student, teacher))
    return losses.ld(*sides, weight, weight.flip(1))


def masks(student: Tensor, teacher: Tensor) -> Tensor:
    """Two coefficients of each anchor, and two prototypes, from the same numbers."""
    n, _, anchors = student.shape
    maps = [x[:, :, :4].reshape(n, -1, 2, 2).repeat(1, 1, 4, 4) for x in (student, teacher)]
    boxes = torch.tensor([2.0, 2.0, 12.0, 14.0]).expand(n, anchors, 4)
    scores = torch.linspace(0.1, 1, anchors).expand(n, -1)
    return losses.mask_kd(student, maps[0], teacher, maps[1], scores, boxes, (16, 16), top=3)


def pixels(function: Callable[..., Tensor], **arguments: object) -> Loss:
    """A loss on the pixels of two images, some of which are ignored and some lie near a boundary."""

    def call(student: Tensor, teacher: Tensor) -> Tensor:
        batch, _, *size = student.shape
        count = batch * size[0] * size[1]
        weights = (torch.arange(count) % 5 / 4).view(batch, *size)
        labels = (torch.arange(count) % 4 - 1).view(batch, *size)
        wanted = (weights, labels) if arguments else (weights,)
        return function(student, teacher, *wanted, **arguments)

    return call


def hidden(student: Tensor, teacher: Tensor) -> Tensor:
    """Hidden states of as many tokens as there are positions, every third of which is padding."""
    states = [x.flatten(2) for x in (student, teacher)]
    tokens = torch.arange(states[0].shape[2]).expand(len(student), -1) % 3 > 0
    return losses.hidden_state(*states, tokens)


def attending(student: Tensor, teacher: Tensor) -> Tensor:
    """Attention of five tokens, the last of which is padding in the second sentence."""
    attention = [accumulate(x)[..., :5].softmax(-1) for x in (student, teacher)]
    tokens = torch.tensor([[True] * 5, [True] * 4 + [False]])[: len(student)]
    return losses.attention_map(*attention, tokens, distance="kl")


FEATURES = {
    "adversarial": module(losses.Adversarial),
    "attention_map": attending,
    "at": losses.at,
    "cwd": losses.cwd,
    "fgd": module(losses.FGD, LABELS, 4.0),
    "fitnet": losses.fitnet,
    "hidden_state": hidden,
    "mgd": module(losses.MGD),
    "pairwise": partial(losses.pairwise, size=3),
    "pkd": losses.pkd,
    "score_l2": lambda s, t: losses.score_l2(s, t, torch.ones(s.shape[0], 1, *s.shape[2:])),
    "sp": losses.sp,
}
PIXELS = {
    "pixel_cwd": pixels(losses.pixel_cwd),
    "pixel_dist": pixels(losses.pixel_dist),
    "pixel_kl": pixels(losses.pixel_kl, boundary_gain=2.0, radius=1),
    "pixel_label": pixels(losses.pixel_label, boundary_gain=2.0, threshold=0.4),
}
EMBEDDINGS = {
    "byot": lambda s, t: losses.byot(s, s, t, t, torch.arange(len(s))),
    "rkd": losses.rkd,
}
ANCHORS = {
    "bckd": boxed(losses.bckd),
    "bounded_box": refined,
    "class_label": lambda s, t: losses.class_label(rows(s), rows(t), threshold=0.2),
    "consistency": losses.consistency,
    "cross_kd": boxed(losses.CrossKD()),
    "detection_label": anchored,
    "dist": losses.dist,
    "dkd": labelled_rows,
    "hard_label": boxed(losses.hard_label),
    "ld": region,
    "mask_kd": masks,
    "region_label": proposed,
    "region_mask": losses.region_mask,
    "soft_kl": losses.soft_kl,
}
CASES = FEATURES | PIXELS | EMBEDDINGS | ANCHORS


def shape_of(name: str) -> tuple[int, ...]:
    if name in FEATURES | PIXELS:
        return (2, 3, 5, 7)
    if name in EMBEDDINGS:
        return (4, 9)
    return (2, 12, 9)


def inputs(name: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    shape = shape_of(name)
    return torch.randn(shape, dtype=torch.float64).to(dtype), torch.randn(shape, dtype=torch.float64).to(dtype)


def test_every_loss_is_held_to_it() -> None:
    assert set(CASES) == set(losses.LOSSES)


@pytest.mark.parametrize("name", sorted(CASES))
def test_gradient_is_the_slope_and_the_teacher_gets_none(name: str) -> None:
    student, teacher = (x.requires_grad_() for x in inputs(name, torch.float64))
    CASES[name](student, teacher).backward()
    assert teacher.grad is None
    if name in {"bckd", "cross_kd", "detection_label", "adversarial"}:
        return  # they hold a weight constant that follows the logits, or climb; their own files check them
    assert torch.autograd.gradcheck(lambda s: CASES[name](s, teacher.detach()), (student,), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_type_gives_a_float32_loss_near_the_float64_one(name: str, dtype: torch.dtype) -> None:
    student, teacher = inputs(name, dtype)
    expected = CASES[name](student.double(), teacher.double())
    found = CASES[name](student.requires_grad_(), teacher)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-4, atol=1e-5)
    found.backward()
    assert student.grad.dtype == dtype


@pytest.mark.parametrize("name", sorted(CASES))
def test_strides_do_not_matter(name: str) -> None:
    student, teacher = inputs(name)
    expected = CASES[name](student, teacher)
    swapped = (x.transpose(0, -1).contiguous().transpose(0, -1) for x in (student, teacher))
    torch.testing.assert_close(CASES[name](*swapped), expected)


@pytest.mark.parametrize("name", sorted(set(CASES) - {"mask_kd"}))
def test_no_images_cost_nothing(name: str) -> None:
    shape = (0, *shape_of(name)[1:])
    student = torch.zeros(shape, requires_grad=True)
    case = CASES[name] if name != "fgd" else module(losses.FGD, LABELS[:0], 4.0)
    loss = case(student, torch.zeros(shape))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("size", [1e4, 1e8])
@pytest.mark.parametrize("name", sorted(set(CASES) - {"fgd", "fitnet", "mgd", "score_l2", "mask_kd"}))
def test_large_numbers_stay_finite(name: str, size: float) -> None:
    student, teacher = (x * size / 10 for x in inputs(name))
    loss = CASES[name](student.requires_grad_(), teacher)
    loss.backward()
    assert torch.isfinite(loss), loss
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("name", sorted(set(CASES) - {"adversarial", "fgd", "mgd"}))
def test_it_compiles_without_graph_breaks(name: str) -> None:
    student, teacher = inputs(name)
    compiled = torch.compile(CASES[name], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(student, teacher), CASES[name](student, teacher))


@pytest.mark.parametrize("kind", [losses.Adversarial, losses.FGD, losses.MGD])
def test_modules_with_parameters_compile_without_graph_breaks(kind: type[torch.nn.Module]) -> None:
    student, teacher = inputs("mgd")
    rest = (LABELS, 4.0) if kind is losses.FGD else ()
    loss = kind(3, mask_ratio=0.0) if kind is losses.MGD else kind(3)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(student, teacher, *rest), loss(student, teacher, *rest))


# Any number of detections fits, and samples of any size.
@pytest.mark.parametrize("name", sorted(set(CASES) - {"detection_label", "region_label", "rkd", "sp"}))
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    student, teacher = inputs(name)
    with pytest.raises(ArgumentError, match="teacher"):
        CASES[name](student, teacher[..., :4])

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_iou

from detkd.errors import ArgumentError
from detkd.losses import RegionLabel, region_label

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def scene(
    regions: int = 12, classes: int = 3, columns: int = 3, detections: int = 4, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Proposals near detections of three images and far from them; the last detection of each image is padding."""
    corner = torch.rand(3, detections, 2) * 30
    found = torch.cat((corner, corner + 8 + torch.rand(3, detections, 2) * 20), -1)
    scores = torch.rand(3, detections, classes)
    images = torch.randint(0, 3, (regions,))
    proposals = found[images, torch.randint(0, detections, (regions,))] + torch.rand(regions, 4) * 8 - 4
    found[:, -1:], scores[:, -1:] = 0, 0
    refined = proposals[:, None] + torch.rand(regions, columns, 4) * 4 - 2
    floats = (x.to(dtype) for x in (torch.randn(regions, 1 + classes), refined, proposals))
    return (*floats, images, found.to(dtype), scores.to(dtype))  # type: ignore[return-value]


def reference(inputs: Inputs, soft: bool = True, threshold: float = 0.5, box_gain: float = 1.0) -> Tensor:
    logits, refined, proposals, images, found, scores = (x.double() if x.is_floating_point() else x for x in inputs)
    coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
    total = torch.zeros((), dtype=torch.float64)
    for r, image in enumerate(images.tolist()):
        target, match, quality = [1.0] + [0.0] * (logits.shape[1] - 1), None, 0.5
        for n, box in enumerate(found[image]):
            best = scores[image, n].max().item()
            overlap = box_iou(box[None], proposals[r][None]).item()
            if best > 0 and (soft or best >= threshold) and overlap >= quality and (match is None or overlap > quality):
                match, quality = n, overlap
        if match is not None:
            label = scores[image, match].tolist()
            kind = label.index(max(label))
            mass = label[kind] if soft else 1.0
            spread = [x / sum(label) if soft else float(c == kind) for c, x in enumerate(label)]
            target = [1 - mass, *(mass * x for x in spread)]
            box = refined[r, kind if refined.shape[1] > 1 else 0]
            own, other = (coder.encode_single(x[None], proposals[r][None]) for x in (box, found[image, match]))
            for gap in (own - other).abs().squeeze(0):
                total = total + box_gain * mass * (gap - 1 / 18 if gap > 1 / 9 else gap**2 / (2 / 9))
        total = total - (torch.tensor(target, dtype=torch.float64) * logits[r].log_softmax(0)).sum()
    return total / max(len(images), 1)


# A proposal and a detection of 10 × 10 at the same place, of image 1 of two.
BOX = torch.tensor([[0.0, 0, 10, 10]])
FOUND = torch.stack((BOX + 50, BOX))
IMAGE = torch.tensor([1])


def test_value_by_hand() -> None:
    # Scores (.6, .2): background .4, the rest .6 as 3 to 1. The student: (1/2, 1/4, 1/4), and the best class's box moved
    # by 1 to the right, one offset of 1: 1 less 1/18.
    logits = torch.tensor([[0.5, 0.25, 0.25]]).log()
    boxes = torch.stack((BOX + torch.tensor([1.0, 0, 1, 0]), BOX * 9), 1)
    scores = torch.tensor([0.6, 0.2]).expand(2, 1, 2)
    entropy = 0.4 * math.log(2) + 0.6 * math.log(4)
    found = region_label(logits, boxes, BOX, IMAGE, FOUND, scores, box_gain=3.0)
    assert found.item() == pytest.approx(entropy + 3 * 0.6 * (1 - 1 / 18), rel=1e-5)
    hard = region_label(logits, boxes, BOX, IMAGE, FOUND, scores, box_gain=3.0, soft=False, threshold=0.59)
    assert hard.item() == pytest.approx(math.log(4) + 3 * (1 - 1 / 18), rel=1e-5)
    below = region_label(logits, boxes, BOX, IMAGE, FOUND, scores, box_gain=3.0, soft=False, threshold=0.61)
    assert below.item() == pytest.approx(math.log(2), rel=1e-6)


def test_close_offsets_are_squared() -> None:
    # Moved by .1: an offset of .1, below 1/9.
    boxes = (BOX + torch.tensor([0.1, 0, 0.1, 0]))[:, None]
    found = region_label(torch.zeros(1, 2), boxes, BOX, IMAGE, FOUND, torch.ones(2, 1, 1))
    assert found.item() == pytest.approx(math.log(2) + 0.5 * 0.1**2 * 9, rel=1e-4)


@pytest.mark.parametrize(("width", "matched"), [(5.1, True), (4.9, False)])
def test_a_region_must_overlap_a_detection_by_half(width: float, matched: bool) -> None:
    logits = torch.tensor([[0.0, math.log(3.0)]])  # 1/4 background
    proposal = torch.tensor([[0.0, 0, width, 10]])
    found = region_label(logits, proposal[:, None], proposal, IMAGE, FOUND, torch.ones(2, 1, 1), box_gain=0.0)
    assert found.item() == pytest.approx(math.log(4 / 3) if matched else math.log(4), rel=1e-5)


def test_a_region_is_matched_within_its_image_to_what_it_overlaps_most() -> None:
    near, nearer = BOX + torch.tensor([0.0, 0, 2, 0]), BOX + torch.tensor([0.0, 0, 1, 0])
    found = torch.stack((torch.cat((BOX, BOX)), torch.cat((near, nearer))))
    scores = torch.eye(2).expand(2, 2, 2)
    logits = torch.tensor([[-50.0, -50.0, 50.0]])
    loss = region_label(logits, nearer[:, None], BOX, IMAGE, found, scores)
    assert loss.item() == pytest.approx(0, abs=1e-5)


def test_a_detection_below_the_threshold_does_not_hide_another() -> None:
    # The one that fits best is not sure enough, the other is.
    found = torch.cat((BOX, BOX + torch.tensor([0.0, 0, 1, 0])))[None]
    scores = torch.tensor([[[0.3], [0.9]]])
    logits = torch.tensor([[-50.0, 50.0]])
    loss = region_label(logits, found[0, 1:, None], BOX, IMAGE - 1, found, scores, soft=False)
    assert loss.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 2), (13, 3, 3, 5), (40, 20, 1, 7)])
def test_against_plain_loops(dtype: torch.dtype, soft: bool, sizes: tuple[int, int, int, int]) -> None:
    inputs = scene(*sizes, dtype=dtype)
    settings = {"soft": soft, "threshold": 0.6, "box_gain": 2.0}
    found = region_label(*inputs, **settings)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(inputs, **settings).item(), rel=1e-4)


@pytest.mark.parametrize("columns", [1, 3])
def test_gradcheck_and_no_gradient_but_for_the_student(columns: int) -> None:
    logits, refined, proposals, images, *found = scene(columns=columns, dtype=torch.float64)
    student = logits.requires_grad_(), refined.requires_grad_()
    others = [x.requires_grad_() for x in (proposals, *found)]
    loss = region_label(*student, proposals, images, *found)
    loss.backward()
    assert [x.grad for x in others] == [None] * 3
    assert refined.grad is not None
    assert refined.grad.any()
    assert torch.autograd.gradcheck(lambda *own: region_label(*own, proposals, images, *found), student)


@pytest.mark.parametrize("count", [0, 2])
def test_without_detections_all_is_background(count: int) -> None:
    logits, refined, proposals, images, *_ = scene()
    loss = region_label(
        logits, refined.requires_grad_(), proposals, images, torch.zeros(3, count, 4), torch.zeros(3, count, 3)
    )
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.int64)))
    loss.backward()
    assert refined.grad is not None
    assert not refined.grad.any()


def test_no_regions_cost_nothing() -> None:
    logits, refined, *rest = scene(regions=0)
    loss = region_label(logits.requires_grad_(), refined.requires_grad_(), *rest)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_extreme_and_degenerate_input_stays_finite(size: float) -> None:
    logits, refined, proposals, *rest = scene()
    logits = (logits * size).requires_grad_()
    refined[::3], refined[1::3] = 0.0, size
    proposals[::4] = 0.0
    refined.requires_grad_()
    loss = region_label(logits, refined, proposals, *rest)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert refined.grad is not None
    assert logits.grad.isfinite().all()
    assert refined.grad.isfinite().all()


def test_module_equals_function_on_strided_input() -> None:
    inputs = scene()
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    settings = {"soft": False, "threshold": 0.3, "box_gain": 2.0}
    torch.testing.assert_close(RegionLabel(**settings)(*strided), region_label(*inputs, **settings))
    torch.testing.assert_close(RegionLabel()(*strided), region_label(*inputs))


def test_compiles_without_graph_breaks() -> None:
    inputs = scene()
    compiled = torch.compile(region_label, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), region_label(*inputs))


def test_misfits_are_named() -> None:
    inputs = scene()
    names = ("student_logits", "class_boxes", "proposals", "proposal_images", "detected_boxes", "detected_scores")
    for index, name in enumerate(names):
        wrong = list(inputs)
        wrong[index] = wrong[index][0]
        with pytest.raises(ArgumentError, match=name):
            region_label(*wrong)
    with pytest.raises(ArgumentError, match="class_boxes"):
        region_label(inputs[0], inputs[1][:, :2], *inputs[2:])
    with pytest.raises(ArgumentError, match="proposal_images"):
        region_label(*inputs[:3], inputs[3].float(), *inputs[4:])
    with pytest.raises(ArgumentError, match=r"detected_scores.*classes"):
        region_label(*inputs[:5], inputs[5][..., :2])
    with pytest.raises(ArgumentError, match="threshold"):
        region_label(*inputs, threshold=0.0)

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou, generalized_box_iou_loss

from detkd.errors import ArgumentError
from detkd.losses import DetectionLabel, detection_label
from detkd.losses.detection_label import assign

Inputs = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]


def scene(
    batch: int = 2, classes: int = 3, side: int = 6, detections: int = 5, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Logits, boxes and points of a grid of anchors 8 pixels apart; crowded detections, the last of each image padding."""
    anchors = side * side
    centre = (torch.arange(side) + 0.5) * 8
    points = torch.stack(torch.meshgrid(centre, centre, indexing="xy"), -1).reshape(-1, 2)
    boxes = torch.cat((points - torch.rand(batch, anchors, 2) * 20, points + torch.rand(batch, anchors, 2) * 20), -1)
    corner = torch.rand(batch, detections, 2) * 20
    found = torch.cat((corner, corner + 6 + torch.rand(batch, detections, 2) * 24), -1)
    scores = torch.rand(batch, detections, classes)
    found[:, -1:], scores[:, -1:] = 0, 0
    return tuple(x.to(dtype) for x in (torch.randn(batch, classes, anchors), boxes, points, found, scores))  # type: ignore[return-value]


def loop_targets(image: Inputs, soft: bool, top: int, threshold: float) -> tuple[list[list[float]], list[int | None]]:
    """Scores and detection of every anchor of one image: logits [C, A], boxes [A, 4], points, detections and scores."""
    logits, boxes, points, detected_boxes, detected_scores = (x.double() for x in image)
    overlaps = box_iou(detected_boxes, boxes).tolist() if len(detected_boxes) else []
    probability, classes = logits.sigmoid().tolist(), len(logits)
    labels, claims = [], {}
    for n, (box, scores) in enumerate(zip(detected_boxes.tolist(), detected_scores.tolist(), strict=True)):
        best = scores.index(max(scores))
        labels.append(scores if soft else [float(c == best and scores[c] >= threshold) for c in range(classes)])
        if not any(labels[n]):
            continue
        aligned = []
        for a, (x, y) in enumerate(points.tolist()):
            if box[0] < x < box[2] and box[1] < y < box[3]:
                aligned.append((probability[best][a] ** 0.5 * overlaps[n][a] ** 6, a))
        for alignment, a in sorted(aligned, reverse=True)[:top]:
            if alignment > 0:
                claims.setdefault(a, []).append((overlaps[n][a], -n, alignment))
    won = {a: max(several) for a, several in claims.items()}
    targets, owners = [[0.0] * classes for _ in points], [None] * len(points)
    for a, (_, negative, alignment) in won.items():
        n = owners[a] = -negative
        mine = [claim for claim in won.values() if claim[1] == negative]
        share = alignment / max(m[2] for m in mine) * max(m[0] for m in mine)
        targets[a] = [share * score for score in labels[n]]
    return targets, owners


def reference(
    inputs: Inputs,
    soft: bool = True,
    top: int = 10,
    threshold: float = 0.5,
    class_gain: float = 1.0,
    box_gain: float = 4.0,
) -> Tensor:
    class_loss, box_loss, total = torch.zeros((), dtype=torch.float64), 0.0, 0.0
    logits, boxes, points, detected_boxes, detected_scores = inputs
    for i in range(len(logits)):
        image = logits[i].detach(), boxes[i].detach(), points, detected_boxes[i], detected_scores[i]
        targets, owners = loop_targets(image, soft, top, threshold)
        goal = torch.tensor(targets, dtype=torch.float64).t()
        class_loss = class_loss + F.binary_cross_entropy_with_logits(logits[i].double(), goal, reduction="sum")
        for a, owner in enumerate(owners):
            if owner is None:
                continue
            total += sum(targets[a])
            pair = boxes[i, a].double()[None], detected_boxes[i, owner].double()[None]
            box_loss = box_loss + sum(targets[a]) * generalized_box_iou_loss(*pair, eps=1e-7).squeeze()
    return (class_gain * class_loss + box_gain * box_loss) / max(total, 1.0)


def one_anchor(box: list[float], scores: list[float]) -> Inputs:
    """An anchor at (1, 1) whose logits are 0, and a detection of 4 × 2 pixels."""
    student = torch.tensor([[box]])
    detection = torch.tensor([[[0.0, 0, 4, 2]]])
    return torch.zeros(1, len(scores), 1), student, torch.ones(1, 2), detection, torch.tensor([[scores]])


def test_value_by_hand() -> None:
    # Half of the detection: IoU and GIoU 1/2. As its only anchor it has the whole alignment, so y = 1/2 · (.8, .2).
    inputs = one_anchor([0.0, 0, 2, 2], [0.8, 0.2])
    found = detection_label(*inputs, class_gain=3.0, box_gain=4.0)
    assert found.item() == pytest.approx(3 * 2 * math.log(2) + 4 * 0.5 * 0.5, rel=1e-5)


def test_hard_labels_by_hand() -> None:
    # y = 1/2 · (1, 0) where .8 reaches the threshold: at logits of 1 the cross-entropy is softplus(1) less y.
    logits, *rest = one_anchor([0.0, 0, 2, 2], [0.8, 0.2])
    softplus = math.log(1 + math.e)
    found = detection_label(logits + 1, *rest, soft=False, threshold=0.79)
    assert found.item() == pytest.approx(2 * softplus - 0.5 + 4 * 0.5 * 0.5, rel=1e-5)
    below = detection_label(logits + 1, *rest, soft=False, threshold=0.81)
    assert below.item() == pytest.approx(2 * softplus, rel=1e-6)


def test_the_sum_of_what_anchors_shall_say_divides() -> None:
    # Three anchors, each on a detection of its own: y = 1 each.
    points = torch.tensor([[5.0, 5], [25, 5], [45, 5]])
    boxes = torch.cat((points - 4, points + 4), 1)[None]
    found = detection_label(torch.zeros(1, 1, 3), boxes, points, boxes, torch.ones(1, 3, 1))
    assert found.item() == pytest.approx(3 * math.log(2) / 3, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 2), (2, 3, 6, 5), (3, 20, 5, 9)])
def test_against_plain_loops(dtype: torch.dtype, soft: bool, sizes: tuple[int, int, int, int]) -> None:
    inputs = scene(*sizes, dtype=dtype)
    settings = {"soft": soft, "top": 4, "threshold": 0.6, "class_gain": 2.0, "box_gain": 3.0}
    found = detection_label(*inputs, **settings)
    assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert found.item() == pytest.approx(reference(inputs, **settings).item(), rel=5e-5)


def test_gradients_are_those_of_fixed_targets() -> None:
    logits, boxes, *rest = scene(dtype=torch.float64)
    logits.requires_grad_()
    boxes.requires_grad_()
    rest = [x.requires_grad_() for x in rest]
    expected = torch.autograd.grad(reference((logits, boxes, *(x.detach() for x in rest))), (logits, boxes))
    detection_label(logits, boxes, *rest).backward()
    torch.testing.assert_close((logits.grad, boxes.grad), expected, rtol=1e-5, atol=1e-8)
    assert [x.grad for x in rest] == [None] * 3


def test_gradcheck_where_no_target_moves() -> None:
    # The only anchor of a detection is its best one whatever its logit.
    logits, *rest = (x.double() for x in one_anchor([0.0, 0, 2, 2], [0.8, 0.2]))
    assert torch.autograd.gradcheck(lambda s: detection_label(s, *rest), (logits.requires_grad_(),))


# Two detections side by side that overlap from 8 to 12; anchors in the first, in both, in the second, and outside.
POINTS = torch.tensor([[4.0, 5], [10, 5], [16, 5], [30, 5]])
PAIR = torch.tensor([[[0.0, 0, 12, 10], [8, 0, 20, 10]]])
CLASSES = torch.tensor([[[0.9, 0.0], [0.0, 0.6]]])


def assigned(boxes: Tensor, top: int = 10, found: Tensor = PAIR, scores: Tensor = CLASSES) -> tuple[Tensor, Tensor]:
    targets, located = assign(torch.zeros(1, 2, 4), boxes[None], POINTS, found, scores, top)
    return targets[0], located[0]


def test_an_anchor_of_two_detections_goes_to_the_one_it_overlaps_more() -> None:
    first, second = PAIR[0]
    boxes = torch.stack((first, second, second, first))
    targets, located = assigned(boxes)
    torch.testing.assert_close(targets, torch.tensor([[0.9, 0], [0, 0.6], [0, 0.6], [0, 0]]))
    torch.testing.assert_close(located[:3], torch.stack((first, second, second)))


def test_of_equal_overlaps_the_first_detection_wins() -> None:
    boxes = torch.tensor([8.0, 0, 12, 10]).expand(4, 4)  # a third of either
    targets, _ = assigned(boxes)
    assert targets[1].argmax() == 0
    swapped, _ = assigned(boxes, found=PAIR.flip(1), scores=CLASSES.flip(1))
    assert swapped[1].argmax() == 1


def test_a_detection_below_the_threshold_takes_no_anchor_from_another() -> None:
    boxes = PAIR[0, :1].expand(4, 4)  # all on the first, which is not sure enough once the threshold is higher
    for threshold, expected in ((0.5, 0), (0.7, 1)):
        scores = torch.tensor([[[0.6, 0.0], [0.0, 0.8]]])
        logits = torch.zeros(1, 2, 4, requires_grad=True)
        arguments = logits, boxes[None], POINTS, PAIR, scores
        (slope,) = torch.autograd.grad(detection_label(*arguments, soft=False, threshold=threshold), logits)
        assert slope[0, :, 1].argmin() == expected


def test_a_detection_that_the_student_rules_out_takes_no_anchor_from_another() -> None:
    logits = torch.tensor([-1e4, 0.0])[None, :, None].expand(1, 2, 4)  # the first class's probability is 0 in any type
    targets, _ = assign(logits, PAIR[:, :1].expand(1, 4, 4), POINTS, PAIR, CLASSES, 10)
    assert targets[0, 1, 0] == 0
    assert targets[0, 1, 1] > 0


def test_the_best_anchor_reaches_its_overlap_and_the_others_their_share_of_it() -> None:
    # Of the first detection: half of it, and a quarter; alignments are as 1 to (1/2)⁶.
    boxes = torch.tensor([[0.0, 0, 12, 5], [0, 0, 6, 5], [90, 0, 91, 1], [0, 0, 1, 1]])
    targets, _ = assigned(boxes, found=PAIR[:, :1], scores=CLASSES[:, :1])
    torch.testing.assert_close(targets[:, 0], 0.9 * 0.5 * torch.tensor([1.0, 2.0**-6, 0, 0]), rtol=1e-5, atol=1e-8)


def test_no_more_anchors_than_the_top_ones_are_taken() -> None:
    points = torch.tensor([[5.0, 5]]).expand(6, -1)
    boxes = torch.tensor([[0.0, 0, 10, 10 - n] for n in (3, 1, 2, 0, 5, 4)])[None]
    logits, found, scores = torch.zeros(1, 1, 6), torch.tensor([[[0.0, 0, 10, 10]]]), torch.ones(1, 1, 1)
    for top, expected in ((1, [3]), (3, [1, 2, 3]), (9, [0, 1, 2, 3, 4, 5])):
        targets, _ = assign(logits, boxes, points, found, scores, top)
        assert targets[0, :, 0].nonzero().flatten().tolist() == expected


def test_the_students_score_of_the_best_class_decides_between_equal_boxes() -> None:
    logits = torch.tensor([[[1.0, 2, 9, 9], [5, 1, 9, 9]]])
    boxes, points = torch.tensor([0.0, 0, 12, 10]).expand(1, 4, 4), POINTS[[0, 0, 3, 3]]
    for kind, expected in ((0, 1), (1, 0)):
        scores = F.one_hot(torch.tensor([[kind]]), 2).float()
        targets, _ = assign(logits, boxes, points, PAIR[:, :1], scores, 1)
        assert targets[0].sum(1).nonzero().flatten().tolist() == [expected]


@pytest.mark.parametrize("count", [0, 3])
def test_without_detections_all_is_background(count: int) -> None:
    logits, boxes, points, *_ = scene(classes=1)
    logits.requires_grad_()
    loss = detection_label(logits, boxes, points, torch.zeros(2, count, 4), torch.zeros(2, count, 1))
    torch.testing.assert_close(loss, F.softplus(logits).sum())
    loss.backward()
    assert logits.grad is not None


def test_padding_and_order_do_not_matter() -> None:
    *student, found, scores = scene(detections=7)
    expected = detection_label(*student, found, scores)
    order = torch.randperm(7)
    torch.testing.assert_close(detection_label(*student, found[:, order], scores[:, order]), expected)
    more = F.pad(found, (0, 0, 2, 3)), F.pad(scores, (0, 0, 2, 3))
    torch.testing.assert_close(detection_label(*student, *more), expected)


@pytest.mark.parametrize("shape", [(0, 3, 5), (2, 3, 0)])
def test_no_images_and_no_anchors_cost_nothing(shape: tuple[int, int, int]) -> None:
    logits = torch.zeros(shape, requires_grad=True)
    batch, classes, anchors = shape
    boxes = torch.zeros(batch, anchors, 4, requires_grad=True)
    found, scores = torch.rand(batch, 2, 4).cumsum(-1), torch.rand(batch, 2, classes)
    loss = detection_label(logits, boxes, torch.zeros(anchors, 2), found, scores)
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("size", [1e4, 1e8])
def test_extreme_input_stays_finite(size: float) -> None:
    logits, boxes, *rest = scene()
    logits, boxes = (logits * size).requires_grad_(), boxes.clone()
    boxes[:, ::3], boxes[:, 1::3] = 0.0, size
    boxes.requires_grad_()
    loss = detection_label(logits, boxes, *rest)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad is not None
    assert boxes.grad is not None
    assert logits.grad.isfinite().all()
    assert boxes.grad.isfinite().all()


def test_module_equals_function_on_strided_input() -> None:
    inputs = scene()
    strided = [x.transpose(0, -1).contiguous().transpose(0, -1) for x in inputs]
    settings = {"soft": False, "top": 3, "threshold": 0.7, "class_gain": 2.0, "box_gain": 0.5}
    torch.testing.assert_close(DetectionLabel(**settings)(*strided), detection_label(*inputs, **settings))
    torch.testing.assert_close(DetectionLabel()(*strided), detection_label(*inputs))


def test_it_is_deterministic_and_compiles_without_graph_breaks() -> None:
    inputs = scene()
    torch.use_deterministic_algorithms(True)
    try:
        expected = detection_label(*inputs)
    finally:
        torch.use_deterministic_algorithms(False)
    compiled = torch.compile(detection_label, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), expected)


def test_misfits_are_named() -> None:
    inputs = scene()
    names = ("student_logits", "student_boxes", "anchor_points", "detected_boxes", "detected_scores")
    for index, name in enumerate(names):
        wrong = list(inputs)
        wrong[index] = wrong[index][0]
        with pytest.raises(ArgumentError, match=name):
            detection_label(*wrong)
    with pytest.raises(ArgumentError, match=r"detected_scores.*classes"):
        detection_label(*inputs[:4], inputs[4][..., :2])
    with pytest.raises(ArgumentError, match=r"detected_scores.*1 or more"):
        detection_label(inputs[0][:, :0], *inputs[1:4], inputs[4][..., :0])
    with pytest.raises(ArgumentError, match=r"detected_boxes.*2 images"):
        detection_label(*inputs[:3], inputs[3][:1], inputs[4][:1])
    with pytest.raises(ArgumentError, match="threshold"):
        detection_label(*inputs, threshold=1.0)
    with pytest.raises(ArgumentError, match="top"):
        detection_label(*inputs, top=0)

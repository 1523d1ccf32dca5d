"""Distillation into and out of two-stage detectors, within the family and across families."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.adapters.families import make_adapter
from detkd.detections import candidates, detect
from detkd.distiller import Distiller
from detkd.errors import AdapterError
from detkd.losses import dkd, region_mask
from detkd.pairing import Pairing
from detkd.second_stage import with_regions
from detkd.teacher_terms import kept_for
from detkd.teachers.live import LiveTeacher
from detkd.teachers.packing import Frame, pack, unpack
from detkd.terms import Term
from detkd.types import DensePredictions, DetectorOutputs, RegionPredictions, Targets
from detkd.vocabulary import image_of, match, region_tensors
from tests.adapters.families import build
from tests.adapters.tiny import CLASSES, SIZE, faster_rcnn, fcos, images, mask_rcnn, retinanet, ssdlite, targets

if TYPE_CHECKING:
    from torch import Tensor, nn

    from detkd.distiller import Distillation

BATCH = 2
SQUARE = (SIZE, SIZE)


def live(model: nn.Module, **options: Any) -> LiveTeacher:
    """A teacher whose weights are not the student's, and whose classes it is sure of."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "cls_score" in name or "cls_logits" in name or name.endswith(".2.bias"):  # heads of torchvision, of YOLO
            torch.nn.init.normal_(parameter, std=0.5)
    return LiveTeacher(make_adapter(model), **options)


def labels() -> list[dict[str, Tensor]]:
    return targets(*[2] * BATCH)


def padded(found: list[dict[str, Tensor]]) -> Targets:
    return Targets(torch.stack([t["boxes"] for t in found]), torch.stack([t["labels"] for t in found]) - 1)


def step(student: nn.Module, distiller: Distiller) -> tuple[Distillation, dict[str, Tensor]]:
    """One step's distillation, and the gradients that it leaves at the student."""
    distiller.attach()
    student.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    if hasattr(student, "roi_heads"):
        task = torch.stack(list(student.train()(list(images()), labels()).values())).sum()
    else:
        student.train()(images())
        task = torch.ones((), requires_grad=True)
    result = distiller(images(), padded(labels()), task)
    result.loss.backward()
    distiller.detach()
    return result, {name: p.grad for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}


def make(student: nn.Module, teachers: list[LiveTeacher], *terms: Term, **options: Any) -> Distiller:
    return Distiller(make_adapter(student), teachers, terms, "none", **options)


ON_FEATURES = ("pkd", "fgd", "at", "sp", "pairwise", "score_l2")
WITHIN = ("bckd", "hard_label", "dkd", "soft_kl", "dist", "bounded_box", "region_label", *ON_FEATURES)


@pytest.mark.parametrize("kind", [faster_rcnn, mask_rcnn])
def test_every_term_of_the_family_pulls_at_the_student_and_leaves_the_teacher(kind: Any) -> None:
    student, teacher = faster_rcnn(), live(kind())
    before = {name: value.clone() for name, value in teacher.adapter.model.state_dict().items()}
    distiller = make(student, [teacher], *(Term(name) for name in WITHIN))
    distiller.try_out(images())
    result, gradients = step(student, distiller)
    assert all(torch.isfinite(value) for value in result.terms.values())
    assert all(value > 0 for name, value in result.terms.items() if name != "bounded_box"), result.terms
    assert {"rpn.head.cls_logits.weight", "roi_heads.box_predictor.cls_score.weight"} <= set(gradients)
    assert any(name.startswith("backbone.body") for name in gradients)
    assert all(p.grad is not None for p in distiller.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.adapter.model.state_dict().items())


def test_both_second_stages_see_the_regions_that_the_student_was_trained_on() -> None:
    student, teacher = faster_rcnn(), live(faster_rcnn())
    seen: list[Any] = []
    student.roi_heads.box_roi_pool.register_forward_hook(lambda _, inputs, __: seen.append(inputs[1]))
    said: list[Any] = []
    student.roi_heads.box_predictor.register_forward_hook(lambda _, __, output: said.append(output[0]))
    result, _ = step(student, make(student, [teacher], Term("dkd", arguments={"beta": 0.25, "temperature": 1.0})))

    teacher.attach()
    features = teacher.run(images()).features
    teacher.detach()
    with torch.no_grad():
        other = teacher.adapter.classify(features, seen[0], SQUARE)
        truth = [t["boxes"] for t in labels()], [t["labels"] for t in labels()]
        _, assigned = student.roi_heads.assign_targets_to_proposals(seen[0], *truth)
    expected = dkd(said[0], other.logits, torch.cat(assigned), beta=0.25, temperature=1.0)
    assert result.terms["dkd"] == pytest.approx(expected.item(), rel=1e-4)


def test_both_mask_heads_see_the_same_objects() -> None:
    student, teacher = mask_rcnn(), live(mask_rcnn())
    distiller = make(student, [teacher], Term("region_mask"))
    distiller.try_out(images())
    distiller.attach()
    found = targets(2, 2, masks=True)
    torch.manual_seed(0)
    student.train()(list(images()), found)
    outputs = distiller._student.take_outputs()
    assert outputs.masks is not None
    terms: Any = distiller.teacher_terms[0]
    whole = teacher.run(images())
    offered = terms._masks(outputs.masks, whole, padded(found), SQUARE)
    result = region_mask(**offered)
    result.backward()
    distiller.detach()
    gradients = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    assert "roi_heads.mask_predictor.mask_fcn_logits.weight" in gradients
    assert "roi_heads.box_predictor.cls_score.weight" not in gradients
    # Each region's mask is that of its object's class, as the detector's own loss takes it.
    labels, _ = match(torch.cat(outputs.masks.proposals), image_of(outputs.masks.proposals), padded(found))
    assert labels.min() > 0
    expected = torch.stack([logits[label - 1] for logits, label in zip(outputs.masks.logits, labels, strict=True)])
    torch.testing.assert_close(offered["student_masks"], expected)
    with pytest.raises(AdapterError, match="mask head for `region_mask`, but FasterRCNN has none"):
        make(faster_rcnn(), [live(mask_rcnn())], Term("region_mask"))


def test_labels_of_regions_by_hand() -> None:
    objects = Targets(
        torch.tensor([[[0.0, 0, 10, 10], [20, 20, 40, 40]], [[0, 0, 10, 10], [0, 0, 0, 0]]]),
        torch.tensor([[1, 0], [-1, -1]]),  # the second image's object is of no common class, and then padding
    )
    proposals = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 4], [21, 20, 40, 40], [0, 0, 10, 10], [50, 50, 60, 60]])
    found, boxes = match(proposals, torch.tensor([0, 0, 0, 1, 1]), objects)
    assert found.tolist() == [2, 0, 1, -1, 0]
    assert boxes[2].tolist() == [20, 20, 40, 40]
    assert (
        match(proposals, torch.zeros(5).long(), Targets(torch.zeros(1, 0, 4), torch.zeros(1, 0).long()))[0].tolist()
        == [0] * 5
    )


def test_the_boxes_of_regions_are_those_of_the_labelled_class() -> None:
    boxes = torch.arange(2 * 3 * 4).float().view(2, 3, 4)
    proposals = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    regions = RegionPredictions((proposals,), torch.zeros(2, 4), boxes)
    objects = Targets(torch.tensor([[[0.0, 0, 10, 10]]]), torch.tensor([[2]]))
    offered = region_tensors(regions, regions, objects)
    assert offered["labels"].tolist() == [3, 0]
    assert offered["student_boxes"][0].tolist() == boxes[0, 2].tolist()
    alike = replace(regions, boxes=boxes[:, :1])
    assert region_tensors(alike, None, objects)["student_boxes"].tolist() == boxes[:, 0].tolist()


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_teacher_of_another_size_sees_the_same_regions(scale: float) -> None:
    """Refined boxes of a head that refines nothing are the regions themselves, in the student's pixels."""
    model = faster_rcnn()
    torch.nn.init.zeros_(model.roi_heads.box_predictor.bbox_pred.weight)
    torch.nn.init.zeros_(model.roi_heads.box_predictor.bbox_pred.bias)
    student, teacher = faster_rcnn(), live(model, scale=scale)
    distiller = make(student, [teacher], Term("soft_kl"))
    terms: Any = distiller.teacher_terms[0]
    distiller.attach()
    student.train()(list(images()), labels())
    own = distiller._student.take_outputs()
    whole = teacher.run(images())
    offered = terms._regions({"teacher_boxes"}, own.regions, whole, padded(labels()), SQUARE)
    distiller.detach()
    torch.testing.assert_close(offered["teacher_boxes"], offered["proposals"], rtol=1e-3, atol=1e-2)


def test_classes_of_the_second_stage_meet_by_name() -> None:
    student, model = faster_rcnn(), faster_rcnn()
    model.class_names = tuple(reversed(CLASSES))
    swapped = live(model)
    straight = live(faster_rcnn())
    weights = straight.adapter.model.state_dict()
    order = [0, 2, 1]
    for name in ("weight", "bias"):
        key = f"roi_heads.box_predictor.cls_score.{name}"
        model.roi_heads.box_predictor.cls_score.state_dict()[name].copy_(weights[key][order])
        deltas = weights[f"roi_heads.box_predictor.bbox_pred.{name}"].unflatten(0, (3, 4))[order].flatten(0, 1)
        model.roi_heads.box_predictor.bbox_pred.state_dict()[name].copy_(deltas)
    terms = [Term("soft_kl"), Term("bounded_box")]
    one, other = (step(student, make(student, [teacher], *terms))[0] for teacher in (straight, swapped))
    for name in ("soft_kl", "bounded_box"):
        assert one.terms[name] == pytest.approx(float(other.terms[name]), rel=1e-4), name


def test_what_only_one_detector_knows_is_background_to_the_other() -> None:
    """A region that the teacher takes for a class of its own must not become one of the student's."""
    student, model = faster_rcnn(), faster_rcnn()
    model.class_names = ("square", "cloud")  # the student knows discs and squares
    teacher = LiveTeacher(make_adapter(model), classes={"square": "square"})
    pairing = Pairing(make_adapter(student), teacher.adapter, classes=teacher.classes)
    logits = torch.tensor([[0.0, 2.0, 9.0], [0.0, 5.0, -9.0]])  # of background, square and cloud
    regions = RegionPredictions((torch.zeros(2, 4),), logits, torch.zeros(2, 2, 4))
    probabilities = logits.softmax(1)
    expected = torch.stack((1 - probabilities[:, 1], probabilities[:, 1]), 1)
    torch.testing.assert_close(pairing.teacher_regions(regions).logits.softmax(1), expected)
    outputs = DetectorOutputs((torch.zeros(1, 1, 1, 1),), (), torch.zeros(1, 2), regions=regions)
    torch.testing.assert_close(candidates(pairing.all_levels(outputs)).scores[0, :, 0], probabilities[:, 1])


@pytest.mark.parametrize(
    ("student", "teacher", "terms"),
    [
        (lambda: build("yolo11n", CLASSES), faster_rcnn, ("pkd", "fgd", "sp", "pairwise", "detection_label")),
        (lambda: build("yolo26n", CLASSES), mask_rcnn, ("pkd", "detection_label")),
        (faster_rcnn, lambda: build("yolov8n", CLASSES), ("pkd", "mgd", "sp", "pairwise", "region_label")),
        (faster_rcnn, lambda: build("yolo26n", CLASSES), ("pkd", "region_label")),
        (faster_rcnn, retinanet, ("pkd", "region_label")),
        (faster_rcnn, fcos, ("region_label",)),
        (faster_rcnn, ssdlite, ("region_label",)),
        (lambda: build("yolov8n", CLASSES), fcos, ("detection_label", "pkd")),
    ],
)
def test_families_teach_each_other(student: Any, teacher: Any, terms: tuple[str, ...]) -> None:
    model = student()
    distiller = make(model, [live(teacher())], *(Term(name) for name in terms))
    distiller.try_out(images())
    result, gradients = step(model, distiller)
    assert all(value > 0 and torch.isfinite(value) for value in result.terms.values()), result.terms
    assert len(gradients) > 5
    assert all(p.grad is not None for p in distiller.parameters())


def test_teachers_of_two_families_are_weighed_by_their_confidence() -> None:
    student = faster_rcnn()
    teachers = [live(faster_rcnn()), live(build("yolo11n", CLASSES))]
    distiller = make(student, teachers, Term("region_label"), Term("pkd"), ensemble="ca_mkd")
    calls: list[Any] = []
    teachers[0].adapter.model.roi_heads.box_head.register_forward_hook(lambda *_: calls.append(1))
    result, gradients = step(student, distiller)
    assert len(calls) == 1  # for its confidence and for what it detects
    assert all(value > 0 for value in result.terms.values())
    assert gradients


def test_cached_teachers_of_two_stages_are_weighed_by_their_confidence() -> None:
    student, teacher, terms = faster_rcnn(), live(faster_rcnn()), [Term("hard_label")]  # which needs no features
    teacher.attach()
    whole = teacher.run(images())
    teacher.detach()
    kept = kept_for(make_adapter(student), teacher, terms, 10**6, "ca_mkd")
    results = []
    for outputs in (whole, unpack(pack(whole, kept), Frame.of(whole))):
        distiller = make(student, [teacher, teacher], *terms, ensemble="ca_mkd")
        distiller._run_teachers = lambda *_, outputs=outputs: [outputs] * 2  # type: ignore[method-assign]
        results.append(float(step(student, distiller)[0].terms["hard_label"]))
    assert results[1] == pytest.approx(results[0], rel=1e-2)


def test_a_one_to_one_head_learns_no_repeated_detections() -> None:
    student = build("yolo26n", CLASSES)
    distiller = make(student, [live(build("yolo26n", CLASSES))], Term("detection_label"))
    _, gradients = step(student, distiller)
    assert any(".cv3." in name for name in gradients)
    assert not any(".one2one_" in name for name in gradients)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    yolo, rcnn = (lambda: build("yolo11n", CLASSES)), faster_rcnn
    for student, teacher, term, message in (
        (yolo, rcnn, "bckd", r"says sigmoid and the teacher objectness.*`detection_label`"),
        (yolo, yolo, "dkd", r"it needs \['student_softmax_logits'"),
        (rcnn, yolo, "bounded_box", r"a second stage for `bounded_box`.*`region_label`"),
        (rcnn, yolo, "bckd", r"says objectness and the teacher sigmoid"),
        (rcnn, rcnn, "detection_label", "needs"),
        (rcnn, rcnn, "cross_kd", "cannot"),
        (yolo, yolo, "rkd", r"`rkd` .* but it needs \['student_embedding', 'teacher_embedding'\]"),
        (rcnn, rcnn, "rkd", r"`rkd` .* but it needs \['student_embedding', 'teacher_embedding'\]"),
    ):
        with pytest.raises(AdapterError, match=message):
            make(student(), [live(teacher())], Term(term))
    wide = rcnn()
    wide.rpn.anchor_generator.sizes = tuple((2 * size,) for (size,) in wide.rpn.anchor_generator.sizes)
    wide.rpn.anchor_generator.cell_anchors = [
        wide.rpn.anchor_generator.generate_anchors(sizes, ratios)
        for sizes, ratios in zip(wide.rpn.anchor_generator.sizes, wide.rpn.anchor_generator.aspect_ratios, strict=True)
    ]
    with pytest.raises(AdapterError, match="the same anchors for `bckd`, but at stride 8"):
        make(rcnn(), [live(wide)], Term("bckd"))


def test_anchors_of_one_shape_that_lie_apart_are_refused_before_training() -> None:
    distiller = make(build("yolo11n", CLASSES), [live(fcos())], Term("bckd"), Term("pkd"))
    with pytest.raises(AdapterError, match=r"anchors for `bckd`, but those of FCOS lie up to 16 pixels.*`detection_label`"):
        distiller.try_out(images())
    make(build("yolo11n", CLASSES), [live(fcos())], Term("detection_label"), Term("pkd")).try_out(images())


def test_classes_that_exclude_each_other_are_none_of_them_one_class_of_the_teachers() -> None:
    both = dict.fromkeys(CLASSES, CLASSES[0])
    with pytest.raises(AdapterError, match=r"one class of the student at most .* given for several"):
        make(faster_rcnn(), [live(faster_rcnn(), classes=both)], Term("dkd"))
    with pytest.raises(AdapterError, match="given for several"):
        make(ssdlite(), [live(ssdlite(), classes=both)], Term("soft_kl"))
    make(build("yolo11n", CLASSES), [live(build("yolo11n", CLASSES), classes=both)], Term("bckd"))


def test_detections_by_hand() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 10], [30, 30, 40, 40], [50, 50, 60, 60]]])
    scores = torch.tensor([[0.6, 0.1], [0.9, 0.1], [0.1, 0.7], [0.3, 0.2], [0.04, 0.01]])
    head = DensePredictions(scores.T.logit()[None], boxes)
    found = detect(candidates(DetectorOutputs((), (head,), torch.zeros(5, 2))))
    # The first overlaps the second, which is better; the third is of another class; the last is noise.
    assert found.boxes[0].tolist() == [[0, 0, 10, 9], [0, 0, 10, 10], [30, 30, 40, 40]]
    torch.testing.assert_close(found.scores[0], scores[[1, 2, 3]])
    assert found.origins is not None
    assert found.origins.tolist() == [[1, 2, 3]]
    silent = detect(candidates(DetectorOutputs((), (replace(head, logits=head.logits - 50),), torch.zeros(5, 2))))
    assert silent.boxes.tolist() == [[[0, 0, 0, 0]]]
    assert silent.scores.tolist() == [[[0, 0]]]


def test_candidates_of_a_second_stage_are_its_best_class() -> None:
    model = faster_rcnn().eval()
    adapter = make_adapter(model)
    adapter.attach()
    with torch.no_grad():
        adapter.run(images())
        outputs = with_regions(adapter, adapter.take_outputs(), SQUARE)
    adapter.detach()
    assert outputs.regions is not None
    found = candidates(outputs)
    count = len(outputs.regions.proposals[0])
    scores = outputs.regions.logits[:count].softmax(1)[:, 1:]
    torch.testing.assert_close(found.scores[0, :count], scores)
    best = scores[0].argmax()
    torch.testing.assert_close(found.boxes[0, 0], outputs.regions.boxes[0, best])


def test_a_cache_gives_back_what_a_two_stage_teacher_said() -> None:
    student, teacher = faster_rcnn(), live(faster_rcnn())
    terms = [Term(name) for name in ("bckd", "dkd", "pkd")]
    teacher.attach()
    whole = teacher.run(images())
    teacher.detach()
    kept = kept_for(make_adapter(student), teacher, terms, 10**6)
    assert kept.levels == (0, 1, 2, 3)  # for the second stage
    restored = unpack(pack(whole, kept), Frame.of(whole))
    assert restored.heads == ()
    assert restored.objectness is not None
    assert whole.objectness is not None
    torch.testing.assert_close(restored.objectness.logits, whole.objectness.logits, rtol=2e-3, atol=2e-3)
    results = []
    for outputs in (whole, restored):
        distiller = make(student, [teacher], *terms)
        distiller._run_teachers = lambda *_, outputs=outputs: [outputs]  # type: ignore[method-assign]
        torch.manual_seed(5)
        for parameter in distiller.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        results.append(step(student, distiller)[0].terms)
    for name, value in results[0].items():
        assert results[1][name] == pytest.approx(float(value), rel=1e-2), name

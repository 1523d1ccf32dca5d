"""A segmenter that learns from segmenters and from detectors, by the distiller of detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
import torch.nn.functional as F

from detkd.adapters.families import make_adapter
from detkd.adapters.ultralytics import UltralyticsAdapter
from detkd.distiller import Distiller
from detkd.errors import AdapterError
from detkd.kinds import drawing_for, kept_for
from detkd.losses import LOSSES
from detkd.teachers.cached import CachedTeacher
from detkd.teachers.ensemble import confidence_weights, pixel_label_loss
from detkd.teachers.live import LiveTeacher
from detkd.teachers.making import CacheMaker
from detkd.teachers.source import Source
from detkd.teachers.store import View
from detkd.terms import Term
from detkd.types import PixelPredictions, PixelTargets
from tests.adapters.families import build
from tests.adapters.tiny import CLASSES, faster_rcnn, mask_rcnn, retinanet, ssdlite
from tests.pixels import LabelProbe, PixelProbe, TinyAdapter, TinySegmenter, labels
from tests.teachers.noise import IMAGES, SIZE, Noise, opinionated

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from detkd.distiller import Distillation

BATCH = 2


@pytest.fixture(autouse=True)
def _probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses on pixels of the tests' own."""
    monkeypatch.setitem(LOSSES, "pixel_probe", PixelProbe)
    monkeypatch.setitem(LOSSES, "label_probe", LabelProbe)


def images(count: int = BATCH) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def live(model: nn.Module, **options: Any) -> LiveTeacher:
    """A teacher that is sure of some classes."""
    if isinstance(model, TinySegmenter):
        return LiveTeacher(TinyAdapter(model), **options)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "cls_score" in name or "cls_logits" in name or (".cv3." in name and name.endswith(".2.bias")):
            torch.nn.init.normal_(parameter, std=0.5)
    return LiveTeacher(make_adapter(model), **options)


def make(student: TinySegmenter, teachers: list[Any], *terms: str, **options: Any) -> Distiller:
    return Distiller(TinyAdapter(student), teachers, [Term(name) for name in terms], "none", **options)


def step(
    student: TinySegmenter, distiller: Distiller, targets: PixelTargets | None = None, views: Any = None
) -> tuple[Distillation, dict[str, Tensor]]:
    """One step's distillation, and the gradients that it leaves at the student."""
    batch = images() if views is None else next(Noise().load(views, IMAGES))
    distiller.attach()
    student.zero_grad(set_to_none=True)
    task = student.train()(batch).square().mean()
    labelled = labels(len(batch), SIZE, boundary=student.boundary) if targets is None else targets
    result = distiller(batch, labelled, task, views)
    result.loss.backward()
    distiller.detach()
    return result, {name: p.grad for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(
    "teacher",
    [
        lambda: TinySegmenter(width=6, seed=1),
        lambda: build("yolov8n", CLASSES),
        lambda: build("yolo26n", CLASSES),
        lambda: build("yolo11n-seg", CLASSES),
        faster_rcnn,
        mask_rcnn,
        retinanet,
        lambda: ssdlite(SIZE),
    ],
)
def test_every_teacher_pulls_at_the_student_and_stays_as_it_was(teacher: Any) -> None:
    student, frozen = TinySegmenter(), live(teacher())
    features = ("pkd", "at") if 8 in frozen.adapter.strides else ()  # SSDlite's finest level is of stride 16
    before = {name: value.clone() for name, value in frozen.adapter.model.state_dict().items()}
    distiller = make(student, [frozen], "pixel_probe", *features)
    distiller.try_out(images())
    result, gradients = step(student, distiller)
    assert all(value > 0 and torch.isfinite(value) for value in result.terms.values()), result.terms
    assert {"fine.weight", "coarse.weight", "head.weight"} <= set(gradients)
    assert all(p.grad is not None and p.grad.any() for name, p in distiller.named_parameters() if "weight" in name)
    assert all(torch.equal(value, before[name]) for name, value in frozen.adapter.model.state_dict().items())


def test_features_teach_without_common_classes_and_without_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing needs detections")

    monkeypatch.setattr("detkd.pixel_pairing.detect", refuse)
    student = TinySegmenter(("cat",))
    result, gradients = step(student, make(student, [live(build("yolov8n", CLASSES))], "pkd"))
    assert result.terms["pkd"] > 0
    assert "coarse.weight" in gradients


def test_pixels_are_those_of_both_weighted_by_teacher_and_label() -> None:
    student, teacher = TinySegmenter(boundary=True), live(TinySegmenter(boundary=True, seed=1))
    distiller = make(student, [teacher], "pixel_probe")
    targets = labels(BATCH, SIZE, boundary=True)
    result, _ = step(student, distiller, targets)
    own, other = student(images()), teacher.adapter.model(images())
    known = (targets.classes >= 0).float()
    classes = (own[:, :3].softmax(1) - other[:, :3].softmax(1)).square().mean(1)
    boundary = (own[:, 3].sigmoid() - other[:, 3].sigmoid()).square()
    expected = ((classes * known).mean() + (boundary * known).mean()) / 2
    assert result.terms["pixel_probe"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_teacher_speaks_of_what_has_no_label_but_not_of_what_is_ignored() -> None:
    student, teacher = TinySegmenter(boundary=True), live(TinySegmenter(boundary=True, seed=1))
    targets = labels(BATCH, SIZE, boundary=True)
    assert targets.boundary is not None
    found = {}
    for name, value in (("ignored", -1), ("unlabelled", -2)):
        nothing = PixelTargets(torch.full_like(targets.classes, value), torch.zeros_like(targets.boundary))
        result, gradients = step(student, make(student, [teacher], "pixel_kl", "pixel_label"), nothing)
        found[name] = (result.terms, gradients)
    assert not any(found["ignored"][0].values())
    assert not found["ignored"][1]
    assert all(value > 0 for value in found["unlabelled"][0].values())
    assert "head.weight" in found["unlabelled"][1]


def test_a_detector_weighs_only_where_it_says_something() -> None:
    student, teacher = TinySegmenter(), live(faster_rcnn())
    distiller = make(student, [teacher], "label_probe")
    targets = labels(BATCH, SIZE)
    step(student, distiller, targets)
    terms: Any = distiller.teacher_terms[0]
    ((logits, weights, given),) = terms.losses["label_probe"].seen
    teacher.attach()
    (head,) = terms.pairing.teacher_heads(teacher.run(images()), (SIZE, SIZE))
    teacher.detach()
    assert 0 < head.weights.mean() < 1
    torch.testing.assert_close(weights, head.weights * (targets.classes >= 0))
    assert torch.equal(given, targets.classes)
    assert logits.shape == (BATCH, 3, SIZE, SIZE)


def test_a_detector_that_finds_nothing_says_background_where_there_is_no_label() -> None:
    student, teacher = TinySegmenter(), live(faster_rcnn())
    found = {}
    for value in (-1, -2):
        distiller = make(student, [teacher], "pixel_kl")
        terms: Any = distiller.teacher_terms[0]
        classes = torch.full((BATCH, SIZE, SIZE), value)
        offered: list[Any] = []
        terms.losses["pixel_kl"].register_forward_hook(lambda _, inputs, __, offered=offered: offered.append(inputs))
        step(student, distiller, PixelTargets(classes))
        found[value] = offered[0]
    assert not found[-1][2].any()
    assert (found[-2][2] == 1).all()
    assert found[-2][1].softmax(1)[:, 0].max() > 0.95  # the background, where nothing was found


def test_a_boundary_head_is_labelled_with_the_boundary_where_pixels_are_known() -> None:
    student = TinySegmenter(("disc",), boundary=True)
    distiller = make(student, [live(TinySegmenter(("disc",), boundary=True, seed=1))], "label_probe")
    classes = torch.tensor([0, 1, 1, -1]).repeat(BATCH, SIZE, SIZE // 4)
    boundary = torch.tensor([False, True, False, True]).repeat(BATCH, SIZE, SIZE // 4)
    step(student, distiller, PixelTargets(classes, boundary))
    (_, weights, own), (_, other_weights, other) = distiller.teacher_terms[0].losses["label_probe"].seen
    assert own[0, 0, :4].tolist() == [0, 1, 1, -1]
    assert other[0, 0, :4].tolist() == [0, 1, 0, -1]
    assert weights[0, 0, :4].tolist() == other_weights[0, 0, :4].tolist() == [1, 1, 1, 0]


def test_a_teacher_of_a_larger_input_and_renamed_classes_teaches() -> None:
    student = TinySegmenter()
    teachers = [
        live(TinySegmenter(("square", "ring", "cloud"), seed=1), scale=2.0, classes={"disc": "ring"}),
        live(build("yolov8n", ("ring",)), classes={"disc": "ring"}),
        live(TinySegmenter(("disc",), seed=2), classes={"disc": "disc"}),
    ]
    distiller = make(student, teachers, "pixel_probe", "pkd", ensemble="ca_mkd")
    distiller.try_out(images())
    result, gradients = step(student, distiller)
    assert all(value > 0 for value in result.terms.values())
    assert all(gradient.isfinite().all() for gradient in gradients.values())


def test_confidence_by_hand() -> None:
    targets = torch.tensor([[[0, 1, -1]], [[-1, -1, -1]]])
    logits = torch.tensor([0.5, 0.25, 0.9]).logit()[None, None, None].expand(2, 1, 1, 3)
    found = pixel_label_loss(PixelPredictions(logits, False), targets)
    assert found.tolist() == pytest.approx([-(torch.tensor([0.5, 0.25]).log().sum() / 2).item(), torch.inf])
    both = torch.cat((torch.zeros_like(logits), logits), 1)
    torch.testing.assert_close(pixel_label_loss(PixelPredictions(both, True), targets), found)


def test_confidence_weighs_each_image() -> None:
    student = TinySegmenter()
    teachers = [live(TinySegmenter(seed=1)), live(TinySegmenter(seed=2))]
    targets = labels(BATCH, SIZE)
    _, got = step(student, make(student, teachers, "pixel_probe", ensemble="ca_mkd"), targets)
    losses = [
        (F.cross_entropy(t.adapter.model(images()), targets.classes, ignore_index=-1, reduction="none")).sum((1, 2))
        / (targets.classes >= 0).sum((1, 2))
        for t in teachers
    ]
    weights = confidence_weights(torch.stack(losses))
    assert weights.std() > 1e-3
    expected = dict.fromkeys(got, 0.0)
    for index, teacher in enumerate(teachers):
        for image in range(BATCH):
            distiller = make(student, [teacher], "pixel_probe")
            distiller.attach()
            student.zero_grad(set_to_none=True)
            one = slice(image, image + 1)
            student(images()[one])
            distiller(images()[one], PixelTargets(targets.classes[one]), torch.zeros(())).loss.backward()
            distiller.detach()
            for name, p in student.named_parameters():
                assert p.grad is not None
                expected[name] += weights[index, image] * p.grad / BATCH
    for name, gradient in got.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7)


def test_a_second_stage_runs_once_for_its_confidence_and_for_what_it_draws() -> None:
    student, teachers = TinySegmenter(), [live(mask_rcnn()), live(build("yolo11n-seg", CLASSES))]
    calls: list[str] = []
    heads = teachers[0].adapter.model.roi_heads
    heads.box_head.register_forward_hook(lambda *_: calls.append("boxes"))
    heads.mask_head.register_forward_hook(lambda *_: calls.append("masks"))
    result, gradients = step(student, make(student, teachers, "pixel_probe", ensemble="ca_mkd"))
    assert calls == ["boxes", "masks"]
    assert result.terms["pixel_probe"] > 0
    assert gradients


def test_gradients_are_balanced_as_those_of_detectors() -> None:
    student = TinySegmenter()
    distiller = Distiller(TinyAdapter(student), [live(TinySegmenter(seed=1))], [Term("pixel_probe"), Term("pkd")])
    result, _ = step(student, distiller)
    assert all(weight > 0 for weight in result.weights.values())


@pytest.mark.parametrize(("terms", "levels"), [(["pixel_probe"], 1), (["pixel_probe", "pkd"], 2)])
def test_gradients_are_measured_no_deeper_than_the_terms_reach(terms: list[str], levels: int) -> None:
    student = TinySegmenter()
    distiller = make(student, [live(TinySegmenter(seed=1))], *terms)
    seen: list[int] = []
    distiller.balance.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[2])))
    step(student, distiller)
    assert seen == [levels]


@pytest.mark.parametrize("term", ["bckd", "fgd", "score_l2", "rkd", "soft_kl", "cross_kd"])
def test_what_a_segmenter_cannot_offer_is_refused_with_what_it_can_learn_by(term: str) -> None:
    with pytest.raises(AdapterError, match=rf"`{term}` to need only what a segmenter offers.*`at`.*`pkd`.*`pixel_probe`"):
        make(TinySegmenter(), [live(TinySegmenter())], term)


def test_pixels_need_common_classes() -> None:
    with pytest.raises(AdapterError, match="`pixel_probe`"):
        make(TinySegmenter(), [live(TinySegmenter(("cat", "dog")))], "pixel_probe")
    strangers = [live(TinySegmenter()), live(TinySegmenter(("cat", "dog")))]
    with pytest.raises(AdapterError, match="`ca_mkd`"):
        make(TinySegmenter(), strangers, "pkd", ensemble="ca_mkd")


def test_a_segmenter_cannot_teach_a_detector() -> None:
    with pytest.raises(AdapterError, match=r"Expected a detector as teacher of a detector, but TinySegmenter"):
        Distiller(UltralyticsAdapter(build("yolov8n")), [live(TinySegmenter())], [Term("pkd")])


@pytest.mark.parametrize(
    ("teacher", "scale", "kept"),
    [
        (lambda: TinySegmenter(boundary=True, seed=1), 2.0, {"pixels.0", "pixels.1", "features.1"}),
        (lambda: opinionated("yolo11n-seg"), 1.0, {"prototypes", "features.0"}),
        (lambda: opinionated("yolo11n"), 1.0, {"features.0"}),
        (mask_rcnn, 1.0, {"drawn", "features.0"}),
    ],
)
def test_a_cached_teacher_says_what_the_live_one_does(
    teacher: Any, scale: float, kept: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, frozen = TinySegmenter(boundary=True), live(teacher(), scale=scale)
    terms = [Term("pixel_probe"), Term("pkd")]
    keeping = kept_for(TinyAdapter(student), frozen, terms, 10_000)
    drawing = drawing_for(TinyAdapter(student), frozen) if keeping.drawn else None
    source = Source(frozen, keeping, Noise(), drawing)
    assert source.fingerprint()["kept"].get("classes") == (list(CLASSES) if keeping.drawn else None)
    assert {name for name in source.fields if not name.startswith("heads.")} == kept
    CacheMaker(source, tmp_path, batch=3).make(lambda _: None)
    cached = CachedTeacher(source, tmp_path)
    views = [View("full", 1, image) for image in range(IMAGES)]
    results = []
    for one in (frozen, cached):
        if one is cached and keeping.drawn:  # what takes the time
            monkeypatch.setattr("detkd.pixel_pairing.with_regions", None)
            monkeypatch.setattr("detkd.pixel_pairing.mask", None)
        torch.manual_seed(0)
        results.append(step(student, make(student, [one], "pixel_probe", "pkd"), views=views)[0].terms)
    for name, value in results[0].items():
        assert value > 0
        assert results[1][name].item() == pytest.approx(value.item(), rel=5e-3), name


def test_a_cache_keeps_no_more_than_terms_need() -> None:
    student = TinyAdapter(TinySegmenter())
    segmenter, yolo, rcnn = live(TinySegmenter()), live(build("yolo11n-seg", CLASSES)), live(faster_rcnn())
    on_features, on_pixels = [Term("pkd")], [Term("pixel_probe")]
    assert kept_for(student, segmenter, on_features, 9).levels == (0, 1)
    assert not kept_for(student, segmenter, on_features, 9).pixels
    assert kept_for(student, segmenter, on_features, 9, "ca_mkd").pixels
    assert kept_for(student, segmenter, on_pixels, 9).levels == ()
    assert not kept_for(student, yolo, on_features, 9).prototypes
    assert kept_for(student, yolo, on_pixels, 9).prototypes
    assert kept_for(student, rcnn, on_features, 9).levels == (0,)
    assert not kept_for(student, rcnn, on_features, 9).drawn
    assert kept_for(student, rcnn, on_pixels, 9).levels == ()
    assert kept_for(student, rcnn, on_pixels, 9).drawn

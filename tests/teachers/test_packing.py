"""What is kept of a teacher's outputs, and what comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detkd.teachers.packing import Frame, Kept, pack, unpack
from detkd.types import DensePredictions, DetectorOutputs
from detkd.vocabulary import confidence

SIZES, CLASSES, BATCH = ((8, 8), (4, 4)), 3, 2
ANCHORS = sum(h * w for h, w in SIZES)


def outputs() -> DetectorOutputs:
    points = torch.rand(ANCHORS, 2) * 640

    def head() -> DensePredictions:
        sides = torch.rand(BATCH, ANCHORS, 4) * 50
        return DensePredictions(
            logits=torch.randn(BATCH, CLASSES, ANCHORS) * 3 - 4,
            boxes=points.repeat(1, 2) + sides * torch.tensor([-1, -1, 1, 1]),
            bins=torch.randn(BATCH, 4, 16, ANCHORS),
            coefficients=torch.randn(BATCH, 5, ANCHORS),
        )

    return DetectorOutputs(
        features=tuple(torch.randn(BATCH, 6, h, w) for h, w in SIZES),
        heads=(head(), head()),
        anchor_points=points,
        prototypes=torch.randn(BATCH, 5, 16, 16),
    )


ALL = Kept(ANCHORS, bins=True, coefficients=True, prototypes=True, levels=(0, 1))


def test_with_all_anchors_only_half_precision_is_lost() -> None:
    whole = outputs()
    packed = pack(whole, ALL)
    assert {tensor.dtype for tensor in packed.values()} == {torch.float16}
    back = unpack(packed, Frame.of(whole))
    for one, other in zip(whole.heads, back.heads, strict=True):
        assert other.known is None
        for name in ("logits", "boxes", "bins", "coefficients"):
            torch.testing.assert_close(getattr(other, name), getattr(one, name), rtol=1e-3, atol=2e-2)
        torch.testing.assert_close(other.boxes, one.boxes, rtol=0, atol=50 / 2**11)  # not 640 / 2**11
    for one, other in zip(whole.features, back.features, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(back.prototypes, whole.prototypes, rtol=1e-3, atol=1e-3)
    assert torch.equal(back.anchor_points, whole.anchor_points)


def test_the_best_anchors_are_kept_and_the_others_average() -> None:
    whole = outputs()
    back = unpack(pack(whole, replace(ALL, anchors=7)), Frame.of(whole))
    for one, other in zip(whole.heads, back.heads, strict=True):
        assert other.known is not None
        assert other.known.sum(1).tolist() == [7, 7]
        scores = confidence(one)
        assert torch.equal(other.known, scores >= scores.topk(7, 1).values[:, -1:])
        assert not (confidence(other)[~other.known] > scores[other.known].min()).any()
        kept, dropped = other.known[:, None].expand_as(one.logits), ~other.known
        torch.testing.assert_close(other.logits[kept], one.logits[kept], rtol=1e-3, atol=1e-3)
        for image in range(BATCH):
            mean = one.logits[image][:, dropped[image]].sigmoid().mean(1)
            filled = other.logits[image][:, dropped[image]].sigmoid()
            torch.testing.assert_close(filled, mean[:, None].expand_as(filled), rtol=1e-2, atol=1e-6)
        torch.testing.assert_close(other.boxes[other.known], one.boxes[other.known], rtol=0, atol=0.05)
        assert other.bins is not None
        assert one.bins is not None
        kept = other.known[:, None, None].expand_as(one.bins)
        torch.testing.assert_close(other.bins[kept], one.bins[kept], rtol=1e-3, atol=1e-3)


def test_only_what_terms_need_is_kept() -> None:
    names = {"student_logits", "teacher_logits", "teacher_boxes"}
    assert Kept.needed(names, (), 9) == Kept(9)
    assert Kept.needed({*names, "teacher_bins"}, (), 9) == Kept(9, bins=True)
    assert Kept.needed({"teacher_feature", "teacher_prototypes"}, (1,), 9) == Kept(9, prototypes=True, levels=(1,))
    assert Kept.needed({"teacher_coefficients"}, (), 9) == Kept(9, coefficients=True)
    whole = outputs()
    packed = pack(whole, Kept(ANCHORS, levels=(1,)))
    assert set(packed) == {f"heads.{number}.{part}" for number in (0, 1) for part in ("logits", "boxes")} | {"features.1"}
    back = unpack(packed, Frame.of(whole))
    assert back.features[0].shape == whole.features[0].shape
    assert back.features[0].is_meta  # no values to be taken for the teacher's
    assert back.heads[0].bins is None


@pytest.mark.parametrize("value", [1e6, -1e6])
def test_values_beyond_half_precision_stay_finite(value: float) -> None:
    whole = outputs()
    whole.features[0][0, 0, 0, 0] = value
    assert pack(whole, ALL)["features.0"].isfinite().all()

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from detkd.evaluation.instances import InstanceSettings, PixelProbabilities, find_instances


def binary(foreground: np.ndarray, boundary: np.ndarray | None = None) -> PixelProbabilities:
    return PixelProbabilities(
        np.stack((1 - foreground, foreground)).astype(np.float32),
        None if boundary is None else boundary.astype(np.float32),
    )


def touching() -> tuple[np.ndarray, np.ndarray]:
    """Two squares of 10 × 10 pixels side by side, and the boundary on both sides of where they meet."""
    foreground, boundary = np.full((14, 24), 0.1), np.zeros((14, 24))
    foreground[2:12, 2:12], foreground[2:12, 12:22] = 0.9, 0.8
    boundary[2:12, 11:13] = 0.9
    return foreground, boundary


def test_a_score_is_the_mean_probability_over_the_object() -> None:
    foreground = np.zeros((6, 6))
    foreground[1:3, 1:3] = [[0.6, 0.8], [1.0, 0.8]]
    (found,) = find_instances(binary(foreground), InstanceSettings(method="components", min_area=1))
    assert found.label == 0
    assert found.score == pytest.approx(0.8)
    assert found.mask.tolist() == (foreground > 0).tolist()


def test_components_join_what_touches_and_watershed_parts_it_where_the_boundary_is() -> None:
    foreground, boundary = touching()
    (joined,) = find_instances(binary(foreground, boundary), InstanceSettings(method="components"))
    assert joined.mask.sum() == 200
    first, second = find_instances(binary(foreground, boundary), InstanceSettings())
    assert first.mask[2:12, 2:12].all()
    assert second.mask[2:12, 12:22].all()
    assert first.mask.sum() == second.mask.sum() == 100
    assert (first.score, second.score) == pytest.approx((0.9, 0.8))
    assert len(find_instances(binary(foreground, boundary), InstanceSettings(boundary_threshold=0.95))) == 1


def test_without_a_boundary_watershed_parts_two_discs_at_their_waist() -> None:
    y, x = np.mgrid[:24, :44]
    discs = [(x - centre) ** 2 + (y - 12) ** 2 <= 100 for centre in (13, 30)]
    found = find_instances(binary((discs[0] | discs[1]).astype(float)), InstanceSettings(min_distance=5))
    assert len(found) == 2
    for disc in discs:
        assert max((one.mask & disc).sum() / (one.mask | disc).sum() for one in found) > 0.9
    assert len(find_instances(binary(np.ones((9, 9))), InstanceSettings())) == 1


def test_what_is_all_boundary_is_still_an_object_and_what_is_too_small_is_none() -> None:
    foreground, boundary = touching()
    foreground[:2] = 0
    foreground[0, 0:3], boundary[0, 0:3] = 0.7, 0.9
    found = find_instances(binary(foreground, boundary), InstanceSettings(min_area=3))
    assert sorted(int(instance.mask.sum()) for instance in found) == [3, 100, 100]
    assert len(find_instances(binary(foreground, boundary), InstanceSettings(min_area=4))) == 2


def test_classes_part_what_touches_and_each_object_scores_by_its_own() -> None:
    classes = np.zeros((3, 4, 8), np.float32)
    classes[:, :, :4] = np.array([0.4, 0.5, 0.1])[:, None, None]
    classes[:, :, 4:] = np.array([0.1, 0.2, 0.7])[:, None, None]
    first, second = find_instances(PixelProbabilities(classes, None), InstanceSettings(method="components"))
    assert (first.label, second.label) == (0, 1)
    assert (first.score, second.score) == pytest.approx((0.5, 0.7))
    assert first.mask[:, :4].all()
    assert second.mask.sum() == 16
    (one,) = find_instances(PixelProbabilities(classes, None), InstanceSettings(method="components", threshold=0.7))
    assert one.label == 1


def test_a_picture_without_objects_has_none() -> None:
    for method in ("components", "watershed"):
        settings = InstanceSettings.model_validate({"method": method})
        assert find_instances(binary(np.zeros((5, 5)), np.ones((5, 5))), settings) == []
        assert find_instances(binary(np.zeros((5, 5))), settings) == []


@pytest.mark.parametrize(
    "wrong", [{"threshold": 1.0}, {"method": "other"}, {"min_area": 0}, {"minimum": 3}, {"min_area": "3"}]
)
def test_wrong_settings_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        InstanceSettings.model_validate(wrong)

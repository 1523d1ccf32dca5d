"""A student that starts from a selection of its teacher's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from detkd.errors import WeightsError
from detkd.inherit import select_weights
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model


def network(width: int, depth: int = 1) -> nn.Module:
    class Concatenating(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, width, 1), nn.Conv2d(3, width, 1)
            self.norm = nn.BatchNorm2d(2 * width)
            self.last = nn.ModuleList(nn.Conv2d(2 * width, 2, 1) for _ in range(depth))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(torch.cat((self.one(x), self.two(x)), 1))

    return Concatenating()


def test_channels_are_thinned_evenly_by_hand() -> None:
    student, teacher = network(2), network(8)
    filled = select_weights(student, teacher)
    assert filled == len(student.state_dict())
    assert torch.equal(student.one.weight, teacher.one.weight[::4])
    assert torch.equal(student.one.bias, teacher.one.bias[::4])
    assert torch.equal(student.last[0].weight, teacher.last[0].weight[:, ::4])
    assert torch.equal(student.last[0].bias, teacher.last[0].bias)


def test_a_thinned_network_computes_the_thinned_map_across_concatenations() -> None:
    student, teacher = network(2).eval(), network(8)
    teacher(torch.randn(4, 3, 8, 8))  # batch statistics that differ from the initial ones
    select_weights(student, teacher.eval())
    x = torch.randn(2, 3, 5, 5)
    torch.testing.assert_close(student(x), teacher(x)[:, ::4])


def test_uneven_widths_and_deeper_teachers() -> None:
    student, teacher = network(3), network(8, depth=2)
    select_weights(student, teacher)
    assert torch.equal(student.one.weight, teacher.one.weight[[0, 2, 5]])
    assert torch.equal(student.last[0].bias, teacher.last[0].bias)


@pytest.mark.parametrize("name", ["fasterrcnn_resnet18_fpn", "fasterrcnn_resnet50_fpn_v2"])
def test_a_box_head_finds_whole_channels_of_a_region_where_it_was_trained_on_them(name: str) -> None:
    student, teacher = (
        build_model(ModelConfig(model=name, width=width), ("disc",), role="", imgsz=64)[0].eval()
        for width in (1 / 16, 1 / 8)
    )
    select_weights(student, teacher)
    regions = torch.rand(2, 32, 7, 7)
    regions[:, 1::2] = 0  # the student sees every other channel, and so shall the teacher
    heads = [model.roi_heads.box_head for model in (student, teacher)]
    first = [next(layer for layer in head.modules() if isinstance(layer, nn.Linear)) for head in heads]
    found, whole = first[0](regions[:, ::2].flatten(1)), first[1](regions.flatten(1))
    torch.testing.assert_close(found, whole[:, ::2])


def test_other_families_and_smaller_teachers_are_refused() -> None:
    with pytest.raises(WeightsError, match="no tensor of the same name"):
        select_weights(network(2), nn.Linear(3, 3))
    with pytest.raises(WeightsError, match=r"at least as wide .* 'one.weight' is \(2, 3, 1, 1\)"):
        select_weights(network(8), network(2))


def test_the_teacher_stays_as_it_was() -> None:
    student, teacher = network(2), network(8)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    select_weights(student, teacher)
    with torch.no_grad():
        student.one.weight.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())

"""A student that starts from a selection of its teacher's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from ultralytics.nn.modules.block import Attention, C2f, C3k2

from detkd.errors import WeightsError
from detkd.inherit import select_weights
from detkd.model_config import ModelConfig
from detkd.models.torchvision import build_model
from tests.adapters.families import build


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


def test_a_deeper_block_gives_the_maps_of_the_layers_that_are_taken() -> None:
    """C2f joins two halves of its input with what each layer says: 2 + 4 maps for the teacher, 2 + 2 for the student."""
    teacher, student = C2f(32, 32, n=4), C2f(16, 16, n=2)
    select_weights(student, teacher)
    maps = teacher.cv2.conv.weight[::2].unflatten(1, (6, 16))
    assert torch.equal(student.cv2.conv.weight, maps[:, :4, ::2].flatten(1, 2))


def test_attention_keeps_whole_heads() -> None:
    teacher, student = Attention(256, num_heads=4), Attention(128, num_heads=2)
    select_weights(student, teacher)
    heads = teacher.qkv.conv.weight.unflatten(0, (4, -1))[::2, :, ::2]  # each of queries, keys and values, 32 + 32 + 64
    assert torch.equal(student.qkv.conv.weight, heads.flatten(0, 1))
    assert torch.equal(student.qkv.bn.running_mean, teacher.qkv.bn.running_mean.unflatten(0, (4, -1))[::2].flatten())
    assert torch.equal(student.pe.conv.weight, teacher.pe.conv.weight.unflatten(0, (4, -1))[::2].flatten(0, 1))
    values = teacher.proj.conv.weight[::2].unflatten(1, (4, -1))[:, ::2]
    assert torch.equal(student.proj.conv.weight, values.flatten(1, 2))


def test_narrower_heads_are_thinned_within_queries_keys_and_values() -> None:
    teacher, student = Attention(128, num_heads=2), Attention(64, num_heads=2)
    select_weights(student, teacher)
    parts = teacher.qkv.conv.weight[:, ::2].unflatten(0, (2, -1)).split([32, 32, 64], 1)
    assert torch.equal(student.qkv.conv.weight, torch.cat([part[:, ::2] for part in parts], 1).flatten(0, 1))


def test_blocks_of_another_kind_are_left_as_they_are() -> None:
    """A large YOLO11 has C3k where a small one has bottlenecks: other layers by the same names."""
    teacher, student = C3k2(64, 64, c3k=True), C3k2(32, 32, c3k=False)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    assert select_weights(student, teacher) == 12
    own = student.state_dict()
    inner = [name for name in own if name.startswith("m.")]
    assert len(inner) == 12
    assert all(torch.equal(own[name], before[name]) for name in inner)
    assert torch.equal(student.cv1.conv.weight, teacher.cv1.conv.weight[::2, ::2])


def test_what_says_other_classes_is_left_as_it_is() -> None:
    teacher, student = build("yolov8n"), build("yolov8n")
    for parameter in student.parameters():
        torch.nn.init.zeros_(parameter)
    last = [name for name, _ in student.named_parameters() if ".cv3." in name and name.endswith(("2.weight", "2.bias"))]
    assert len(last) == 6
    select_weights(student, teacher, (("b", "a"), ("a", "b")))
    own, other = student.state_dict(), teacher.state_dict()
    assert not any(own[name].any() for name in last)
    assert torch.equal(own["model.0.conv.weight"], other["model.0.conv.weight"])
    select_weights(student, teacher, (("a", "b"), ("a", "b")))
    assert all(torch.equal(own[name], other[name]) for name in last)

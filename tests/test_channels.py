"""Which channels of a teacher a narrower student takes where layers are thinned by different ratios."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from detkd.adapters.ultralytics import import_ultralytics
from detkd.channels import chosen_channels, even
from detkd.inherit import select_weights
from detkd.model_config import ModelConfig
from detkd.models import unet

SHALLOW = 0.33


def build(name: str, width: float, cap: int, depth: float = SHALLOW, scale: str = "n") -> Any:
    """A YOLO of which every tensor is random, statistics too."""
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel, yaml_model_load

    torch.manual_seed(0)
    tree = copy.deepcopy(yaml_model_load(f"{name}.yaml"))
    tree["scale"], tree["scales"] = scale, {scale: [depth, width, cap]}
    model = DetectionModel(tree, nc=2, verbose=False).eval()
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        randomise(norm)
    return model


def randomise(norm: nn.BatchNorm2d) -> None:
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 1.5)


def mask(kept: torch.Tensor) -> Any:
    """A hook that lets these channels of an output alone."""
    return lambda _, __, output: output.mul(torch.zeros(output.shape[1]).index_fill(0, kept, 1)[:, None, None])


def silence(model: nn.Module, student: nn.Module) -> None:
    """Let those channels of all of a model's layers say nothing that a narrower one's stand for nothing of.

    Attention says nothing at all: its heads have channels of their own, which tests/test_inherit.py looks at.
    """
    others: dict[str, Any] = dict(student.named_modules())
    for path, module in model.named_modules():
        if path.endswith(".attn"):
            module.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
        elif path not in others and path.split(".")[-1].isdigit():  # a deeper model's block
            module.register_forward_hook(mask(torch.tensor([], dtype=torch.long)))
        elif type(module).__name__ in {"Conv", "DWConv"} and path in others:
            given, wanted = (one.conv.out_channels for one in (module, others[path]))
            module.register_forward_hook(mask(torch.arange(wanted) * given // wanted))


def raw(model: nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    outputs = model(images)[1]
    head = outputs.get("one2one", outputs)  # YOLO26 has two heads
    return [head[key] for key in ("boxes", "scores")]


@pytest.mark.parametrize(
    ("name", "narrow", "wide", "depth"),
    [
        ("yolov3-tiny", (0.0625, 512), (0.25, 128), SHALLOW),
        ("yolov5n", (0.0625, 512), (0.125, 256), SHALLOW),
        ("yolov8n", (0.0625, 1024), (0.125, 512), SHALLOW),
        ("yolov8n", (0.0625, 1024), (0.3125, 512), 1.0),  # of x, a quarter as wide as it is
        ("yolo11n", (0.125, 1024), (0.25, 512), SHALLOW),
        ("yolo26n", (0.125, 1024), (0.25, 512), SHALLOW),
    ],
)
@torch.no_grad()
def test_a_student_of_a_teacher_of_capped_width_computes_what_the_teacher_does_by_the_channels_it_has(
    name: str, narrow: tuple[float, int], wide: tuple[float, int], depth: float
) -> None:
    student, teacher = build(name, *narrow), build(name, *wide, depth=depth)
    select_weights(student, teacher)
    silence(teacher, student)
    silence(student, student)
    images = torch.rand(1, 3, 64, 64)
    for found, expected in zip(raw(student, images), raw(teacher, images), strict=True):
        assert expected.std() > 0.01
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_every_part_of_a_concatenation_is_thinned_by_its_own_ratio() -> None:
    student, teacher = build("yolo11n", 0.125, 1024), build("yolo11n", 0.5, 256, scale="l")
    chosen = chosen_channels(student, teacher)
    # Layer 10 gives 128 channels, as many as the student's, which has no cap; layer 6 gives 128 for its 64.
    parts = torch.cat((even(128, 128), 128 + even(128, 64)))
    assert torch.equal(chosen["model.13.cv1.conv.weight", 1], parts)
    assert not torch.equal(parts, even(256, 192))
    select_weights(student, teacher)
    expected = teacher.model[13].cv1.conv.weight[even(128, 64)][:, parts]
    assert torch.equal(student.model[13].cv1.conv.weight, expected)


@pytest.mark.parametrize(("name", "narrow", "wide"), [("unet", 0.35, 1.0), ("unet_resnet18", 0.25, 1.0)])
@torch.no_grad()
def test_a_unet_computes_what_its_teacher_does_by_the_channels_it_has(name: str, narrow: float, wide: float) -> None:
    """Widths that no ratio describes; a decoder that is thinned beside an encoder that is not."""
    student, teacher = (
        unet.build_model(ModelConfig(model=name, width=width), ["disc"], role="student", imgsz=64)[0].eval()
        for width in (narrow, wide)
    )
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            randomise(module)
    assert select_weights(student, teacher) == len(student.state_dict())
    others = dict(student.named_modules())
    for path, module in teacher.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            kept = even(module.num_features, others[path].num_features)
            module.register_forward_hook(mask(kept))
    images = torch.rand(1, 3, 64, 64)
    expected = teacher(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(student(images), expected, rtol=1e-4, atol=1e-4)


def test_the_search_leaves_a_model_as_it_is() -> None:
    student, teacher = build("yolov8n", 0.0625, 1024).train(), build("yolov8n", 0.125, 256).half()
    before = copy.deepcopy(teacher.state_dict())
    chosen_channels(student, teacher)
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert student.training
    assert not any(module._forward_pre_hooks for model in (student, teacher) for module in model.modules())

"""Teachers that cost less: another memory layout, compiled, pruned, or of smaller pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from detkd.adapters.classifier import HookedClassifierAdapter
from detkd.adapters.unet import UNetAdapter
from detkd.engines.families import build_teacher
from detkd.errors import AdapterError, ConfigError
from detkd.model_config import TeacherConfig
from detkd.models.classifier import ClassifierArchitecture
from detkd.models.classifier_files import save_model
from detkd.models.image_classifiers import cnn, mobilenet_v3_small, resnet18
from detkd.models.pruning import prune
from detkd.models.text_classifiers import LSTMClassifier
from detkd.teachers.live import LiveTeacher

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.models.classifier import Classifier
    from detkd.types import ClassifierOutputs

NAMES = ("a", "b", "c")


def build(kind: Any, width: float = 0.25, side: int = 32) -> Classifier:
    torch.manual_seed(0)
    model: Classifier = kind(ClassifierArchitecture(kind.__name__, NAMES, side, width=width))
    model.train()(torch.rand(16, 3, side, side))  # statistics, without which one from scratch says nothing
    return model.eval()


def said(model: nn.Module, images: Tensor, **how: Any) -> ClassifierOutputs:
    teacher = LiveTeacher(HookedClassifierAdapter(model), **how)
    teacher.attach()
    try:
        return teacher.run(images)  # type: ignore[return-value]
    finally:
        teacher.detach()


def test_convolutions_work_on_channels_last_memory_from_end_to_end() -> None:
    model, layouts = build(resnet18), []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        tensors = (inputs[0], output, module.weight)
        layouts.append(all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in tensors))

    images = torch.rand(2, 3, 32, 32)
    expected = model(images)
    teacher = LiveTeacher(HookedClassifierAdapter(model))
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(watch)
    teacher.attach()
    outputs: Any = teacher.run(images)
    assert len(layouts) == 20
    assert all(layouts)
    torch.testing.assert_close(outputs.logits, expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_teacher_says_the_same_on_every_attachment(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.compiler.reset()  # what other tests have compiled of the same functions counts against their limit
    graphs, compile_ = [], torch.compile

    def counted(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(sum(node.op == "call_function" for node in graph.graph.nodes))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda function: compile_(function, backend=counted))
    model = build(cnn)
    teacher = LiveTeacher(HookedClassifierAdapter(model), compiled=True)
    for images in torch.rand(3, 2, 3, 32, 32):
        expected = said(model, images)
        teacher.attach()
        found: Any = teacher.run(images)
        teacher.detach()
        torch.testing.assert_close(found.logits, expected.logits)
        for one, other in zip(found.features, expected.features, strict=True):
            torch.testing.assert_close(one, other)
    assert len(graphs) == 1  # the whole of it, hooks and all, and once
    assert graphs[0] > 10


def test_what_is_no_graph_of_fixed_shapes_is_not_compiled() -> None:
    text = LSTMClassifier(ClassifierArchitecture("lstm", NAMES, 8, width=0.25, vocabulary=30), "{}")
    with pytest.raises(AdapterError, match="Leave `compile` out"):
        LiveTeacher(HookedClassifierAdapter(text), compiled=True)


@pytest.mark.parametrize("kind", [resnet18, cnn, mobilenet_v3_small])
def test_pruning_cuts_channels_and_keeps_classes_strides_and_levels(kind: Any) -> None:
    model = build(kind, 0.5)
    before = HookedClassifierAdapter(model)
    count = sum(parameter.numel() for parameter in model.parameters())
    sentence = prune(model, 0.3)
    after = HookedClassifierAdapter(model)
    left = sum(parameter.numel() for parameter in model.parameters())
    assert sentence == f"{left} of {count} parameters left when 30% of the channels were cut"
    assert 0.4 < left / count < 0.6  # about the square of .7
    assert after.strides == before.strides
    assert all(0.5 * a < b < 0.8 * a for a, b in zip(before.feature_channels, after.feature_channels, strict=True))
    assert said(model, torch.rand(2, 3, 32, 32)).logits.shape == (2, 3)


def test_channels_that_say_nothing_are_the_ones_that_are_cut() -> None:
    """Of a network whose every second channel is dead, cutting half changes nothing."""
    model = build(cnn, 0.5)
    with torch.no_grad():
        for block in model.body:
            block[0].weight[::2], block[1].weight[::2], block[1].bias[::2] = 0.0, 0.0, 0.0
            block[1].running_mean[::2] = 0.0
        for block in model.body[1:]:
            block[0].weight[:, ::2] = 0.0
        model.head[0].weight[:, torch.arange(model.head[0].in_features) // 4 % 2 == 0] = 0.0
        model.head[0].weight[::2], model.head[0].bias[::2], model.head[2].weight[:, ::2] = 0.0, 0.0, 0.0
    images = torch.rand(4, 3, 32, 32)
    expected = model(images).detach()
    prune(model, 0.5)
    assert [block[0].out_channels for block in model.body] == [8, 16, 32]
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-6)
    assert expected.std(0).min() > 1e-4


def test_a_small_share_changes_what_is_said_less_than_a_large_one() -> None:
    images = torch.rand(8, 3, 32, 32)
    expected = build(resnet18, 0.5)(images).softmax(1)
    away = []
    for share in (0.02, 0.5):
        model = build(resnet18, 0.5)
        prune(model, share)
        away.append(float((model(images).softmax(1) - expected).detach().abs().mean()))
    assert away[0] < 0.5 * away[1]


def test_a_configuration_prunes_what_it_loads_and_only_classifiers_of_pictures(tmp_path: Path) -> None:
    save_model(build(cnn, 0.5), tmp_path / "teacher.safetensors")
    spec = TeacherConfig(weights=tmp_path / "teacher.safetensors", prune=0.5)
    model, origin = build_teacher(spec, NAMES, 32)
    assert origin.startswith("all tensors from")
    assert origin.endswith("when 50% of the channels were cut")
    assert HookedClassifierAdapter(model).feature_channels == (8, 16, 32)
    with pytest.raises(ConfigError, match=r"distill\.teacher\.prune: expected a classifier of pictures or a U-Net"):
        build_teacher(TeacherConfig(model="yolov5n.yaml", width=0.0625, prune=0.5), NAMES, 64)


def test_a_unet_keeps_its_levels_and_what_it_says_of_each_pixel() -> None:
    teacher, origin = build_teacher(TeacherConfig(model="unet", width=0.5, prune=0.5), ("disc",), 64)
    assert origin.startswith("from scratch; ")
    whole, _ = build_teacher(TeacherConfig(model="unet", width=0.5), ("disc",), 64)
    small, large = UNetAdapter(teacher), UNetAdapter(whole)
    assert small.strides == large.strides
    assert [2 * channels for channels in small.feature_channels] == list(large.feature_channels)
    assert teacher.eval()(torch.rand(1, 3, 64, 64)).shape == whole.eval()(torch.rand(1, 3, 64, 64)).shape


def test_a_teacher_of_smaller_pictures_sees_them_scaled() -> None:
    model, images = build(cnn), torch.rand(2, 3, 32, 32)
    half = torch.nn.functional.interpolate(images, scale_factor=0.5, mode="bilinear", antialias=True)
    expected = said(build(cnn, side=16), half)
    assert [feature.shape[2] for feature in said(model, images, scale=0.5).features] == [8, 4, 2]
    assert [feature.shape for feature in expected.features] == [f.shape for f in said(model, images, scale=0.5).features]

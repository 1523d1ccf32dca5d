"""Classifiers as distillation sees them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from detkd.adapters.base import ClassifierAdapter, SegmenterAdapter
from detkd.adapters.classifier import HookedClassifierAdapter, Taps
from detkd.adapters.families import make_any_adapter
from detkd.errors import AdapterError
from detkd.models.classifier import ClassifierArchitecture
from detkd.models.image_classifiers import cnn, mobilenet_v3_small, resnet18
from detkd.models.text_classifiers import LSTMClassifier, TransformerClassifier
from detkd.types import ClassifierOutputs

NAMES = ("cat", "dog", "owl")


def picture(build: Any = cnn) -> nn.Module:
    model: nn.Module = build(ClassifierArchitecture(build.__name__, NAMES, 32, width=0.25))
    return model


def text(kind: Any) -> nn.Module:
    model: nn.Module = kind(ClassifierArchitecture("x", NAMES, 16, width=0.25, vocabulary=30), "{}")
    return model


@pytest.mark.parametrize(
    ("build", "strides"), [(cnn, (2, 4, 8)), (resnet18, (1, 2, 4, 8)), (mobilenet_v3_small, (1, 2, 4, 8))]
)
def test_levels_of_pictures(build: Any, strides: tuple[int, ...]) -> None:
    adapter = make_any_adapter(picture(build))
    assert isinstance(adapter, ClassifierAdapter)
    assert not isinstance(adapter, SegmenterAdapter)
    assert adapter.strides == strides
    adapter.attach()
    adapter.run(torch.rand(2, 3, 32, 32))
    outputs = adapter.take_outputs()
    shapes = [tuple(feature.shape) for feature in outputs.features]
    assert shapes == [(2, c, 32 // s, 32 // s) for c, s in zip(adapter.feature_channels, strides, strict=True)]
    assert outputs.embedding.shape == (2, adapter.embedding_size)
    assert outputs.tokens is None


def test_a_training_pass_is_seen_as_well() -> None:
    model = picture()
    adapter = HookedClassifierAdapter(model)
    adapter.attach()
    loss = model(list(torch.rand(4, 3, 32, 32)), torch.tensor([0, 1, 2, 0]))["cross_entropy"]
    outputs = adapter.take_outputs()
    expected = nn.functional.cross_entropy(outputs.logits, torch.tensor([0, 1, 2, 0]))
    torch.testing.assert_close(loss, expected)
    assert torch.autograd.grad(loss, outputs.features)[0].abs().sum() > 0
    torch.testing.assert_close(model.head[2](outputs.embedding), outputs.logits)


def test_hidden_states_attention_and_padding_of_sentences() -> None:
    model = text(TransformerClassifier).eval()
    adapter = HookedClassifierAdapter(model)
    assert (adapter.attention_layers, adapter.strides) == (2, (1, 1, 1))
    adapter.attach()
    ids = torch.tensor([[2, 5, 6, 3], [2, 7, 3, 0]])[:, None, None]
    model(ids)
    outputs = adapter.take_outputs()
    assert [tuple(feature.shape) for feature in outputs.features] == [(2, 32, 4, 1)] * 3
    assert outputs.tokens is not None
    assert outputs.tokens.tolist() == [[True] * 4, [True, True, True, False]]
    for attention in outputs.attentions:
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 1, 4))
        assert attention[1, :, :, 3].max() == 0


@pytest.mark.parametrize("kind", [TransformerClassifier, LSTMClassifier])
def test_gradients_can_be_measured_at_the_hidden_states_of_sentences(kind: Any) -> None:
    model = text(kind)
    adapter = make_any_adapter(model)
    adapter.attach()
    adapter.run(torch.randint(1, 30, (2, 1, 1, 5)))
    outputs = adapter.take_outputs()
    assert isinstance(outputs, ClassifierOutputs)
    gradients = torch.autograd.grad(outputs.logits.square().sum(), outputs.hidden)
    assert all(gradient.any() for gradient in gradients)
    for state, feature in zip(outputs.hidden, outputs.features, strict=True):
        assert torch.equal(state.transpose(1, 2)[..., None], feature)


def test_an_lstm_says_no_attention() -> None:
    assert HookedClassifierAdapter(text(LSTMClassifier)).attention_layers == 0


def test_any_module_is_watched_by_its_paths() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    )
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = HookedClassifierAdapter(model, Taps(("1",), "4", (3, 16, 16)), NAMES)
    assert (adapter.strides, adapter.feature_channels, adapter.embedding_size) == ((2,), (5,), 5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_what_it_does_not_say_is_asked_for() -> None:
    with pytest.raises(AdapterError, match="taps"):
        HookedClassifierAdapter(nn.Linear(2, 3))
    with pytest.raises(AdapterError, match="name for each of the 3"):
        HookedClassifierAdapter(picture(), class_names=["cat"])
    adapter = HookedClassifierAdapter(picture())
    adapter.attach()
    with pytest.raises(AdapterError, match="no forward pass"):
        adapter.take_outputs()

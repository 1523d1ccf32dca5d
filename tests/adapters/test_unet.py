"""What the adapter says of a U-Net, against what the network itself computes."""

from __future__ import annotations

import copy
import pickle
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn

from detkd.adapters.families import make_any_adapter
from detkd.adapters.unet import UNetAdapter
from detkd.errors import AdapterError
from detkd.models.segmenter import Segmenter
from detkd.models.unet import construct
from detkd.models.unet_architecture import UNetArchitecture
from detkd.types import PixelTargets
from tests.adapters.tiny import fcos

if TYPE_CHECKING:
    from detkd.adapters.base import SegmenterAdapter

NAMES = ["unet", "unet_tu-mobilenetv3_small_050", "unet_resnet18", "unet_mit_b0"]
SIZE = 64


def build(name: str = "unet", classes: tuple[str, ...] = ("disc", "square"), boundary: bool = True) -> Segmenter:
    torch.manual_seed(0)
    return construct(UNetArchitecture(name, classes, SIZE, boundary, 0.25))


def images(count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def attached(model: nn.Module) -> UNetAdapter:
    adapter = UNetAdapter(model)
    adapter.attach()
    return adapter


def hooks(model: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_the_decoders_and_the_deepest_the_encoders(name: str) -> None:
    model = build(name).eval()
    adapter = attached(model)
    with torch.no_grad():
        logits = model(images())
    outputs = adapter.take_outputs()
    deepest = model.stride
    assert adapter.strides == tuple(2**k for k in range(1, deepest.bit_length()))
    assert adapter.feature_channels == tuple(level.shape[1] for level in outputs.features)
    for level, stride in zip(outputs.features, adapter.strides, strict=True):
        assert level.shape[2:] == (SIZE // stride, SIZE // stride)
    with torch.no_grad():
        encoded = model.network.encoder((images() - model.mean) / model.deviation)
    torch.testing.assert_close(outputs.features[-1], encoded[-1])
    torch.testing.assert_close(torch.cat([head.logits for head in outputs.heads], 1), logits)
    assert [head.softmax for head in outputs.heads] == [True, False]


def test_the_second_finest_block_is_the_level_of_stride_2() -> None:
    model = build().eval()
    adapter = attached(model)
    found = []
    model.network.decoder.blocks[-2].register_forward_hook(lambda _, __, output: found.append(output))
    model(images())
    torch.testing.assert_close(adapter.take_outputs().features[0], found[0], rtol=0, atol=0)


def test_it_knows_classes_and_what_kind_of_logits_they_have() -> None:
    one, many = UNetAdapter(build(classes=("cell",), boundary=False)), UNetAdapter(build())
    assert (one.class_names, one.softmax, one.boundary) == (("cell",), False, False)
    assert (many.class_names, many.softmax, many.boundary) == (("disc", "square"), True, True)


def test_a_training_step_carries_a_gradient_through_what_was_taken() -> None:
    model = build().train()
    adapter = attached(model)
    classes = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    losses = model(images(), PixelTargets(classes, classes == 1))
    assert set(losses) == {"classes", "dice", "boundary"}
    outputs = adapter.take_outputs()
    (outputs.features[-1].sum() + outputs.heads[1].logits.sum()).backward()
    assert model.network.encoder.blocks[0][0].weight.grad.abs().sum() > 0
    assert model.network.segmentation_head.weight.grad[-1].abs().sum() > 0


def test_a_run_says_the_same_as_the_models_own_pass() -> None:
    model = build().eval()
    adapter = attached(model)
    with torch.no_grad():
        logits = model(images())
        adapter.run(images())
    torch.testing.assert_close(adapter.take_outputs().heads[0].logits, logits[:, :3])


def test_outputs_are_let_go_of_and_cannot_be_taken_twice() -> None:
    model = build()
    adapter = attached(model)
    model(images())
    outputs = adapter.take_outputs()
    held = weakref.ref(outputs.features[0])
    del outputs
    assert held() is None
    with pytest.raises(AdapterError, match="ran no forward pass"):
        adapter.take_outputs()


def test_the_model_is_left_as_it_was() -> None:
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    adapter = UNetAdapter(model)
    assert all(module.training for module in model.modules())
    assert hooks(model) == 0
    torch.testing.assert_close(model.state_dict(), before)
    adapter.attach()
    assert hooks(model) > 0
    adapter.detach()
    assert hooks(model) == 0


def test_a_watched_model_can_be_copied_and_pickled() -> None:
    model = build().eval()
    adapter = attached(model)
    model(images())
    twins = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    taken = adapter.take_outputs().heads[0].logits
    for twin in twins:
        torch.testing.assert_close(twin(images())[:, :3], taken)


def test_a_segmenter_is_known_among_detectors() -> None:
    adapter: SegmenterAdapter = UNetAdapter(build())
    assert adapter.strides == (2, 4, 8, 16)
    assert isinstance(make_any_adapter(build()), UNetAdapter)
    assert not isinstance(make_any_adapter(fcos()), UNetAdapter)


def test_other_models_are_refused() -> None:
    for model in (fcos(), Segmenter(nn.Conv2d(3, 1, 1), ("cell",), boundary=False, stride=1)):
        with pytest.raises(AdapterError, match=type(model).__name__):
            UNetAdapter(model)

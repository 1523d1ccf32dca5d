"""U-Nets from a configuration, what they learn from labels, their checkpoints and exports."""

from __future__ import annotations

import copy
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from detkd.errors import ArgumentError, ConfigError, WeightsError
from detkd.model_config import ModelConfig
from detkd.models.segmenter import DEVIATION, MEAN, Segmenter
from detkd.models.unet import build_model, load_model, save_model
from detkd.types import PixelTargets
from detkd.weights import METADATA, saved_name

if TYPE_CHECKING:
    from pathlib import Path

CLASSES = ("disc", "square")
SMALL = "unet_tu-mobilenetv3_small_050"
SIZE = 32


def build(name: str = "unet", classes: tuple[str, ...] = CLASSES, imgsz: int = SIZE, **spec: Any) -> Segmenter:
    torch.manual_seed(0)
    return build_model(ModelConfig(model=name, **spec), classes, role="student", imgsz=imgsz)[0]


def tiny(**spec: Any) -> Segmenter:
    return build(width=0.25, **spec)


def pictures(count: int = 2, size: int = SIZE) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def labels(count: int = 2, size: int = SIZE, classes: int = 2) -> PixelTargets:
    found = torch.arange(count * size * size).view(count, size, size) % (classes + 2) - 1
    return PixelTargets(classes=found, boundary=found == 1)


class Constant(nn.Module):
    """Says the same logits, whatever it is shown."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen = images
        return self.logits


def constant(logits: list[list[float]], classes: tuple[str, ...] = CLASSES, **options: Any) -> Segmenter:
    """A segmenter of one row of pixels, of which each channel's logits are given."""
    network = Constant(torch.tensor(logits)[None, :, None])
    return Segmenter(network, classes, boundary=options.pop("boundary", False), stride=1, **options)


def row(*classes: int, boundary: list[bool] | None = None) -> PixelTargets:
    return PixelTargets(torch.tensor([[classes]]), None if boundary is None else torch.tensor([[boundary]]))


@pytest.mark.parametrize("name", ["unet", SMALL, "unet_resnet18"])
@pytest.mark.parametrize(
    ("classes", "boundary", "channels"), [(("cell",), False, 1), (("cell",), True, 2), (CLASSES, True, 4)]
)
def test_logits_have_the_inputs_size_and_a_channel_for_all_that_is_said(
    name: str, classes: tuple[str, ...], boundary: bool, channels: int
) -> None:
    model = build(name, classes, width=0.25, boundary=boundary).eval()
    logits = model(pictures())
    assert logits.shape == (2, channels, SIZE, SIZE)
    heads = model.split(logits)
    assert [head.softmax for head in heads] == [len(classes) > 1, False][: 1 + boundary]
    torch.testing.assert_close(torch.cat([head.logits for head in heads], 1), logits)
    torch.testing.assert_close(model(list(pictures())), logits)


def test_it_says_where_objects_end_unless_told_not_to() -> None:
    assert tiny().boundary
    assert not tiny(boundary=False).boundary


def test_the_plain_one_is_compact_and_width_scales_it() -> None:
    sizes = [sum(p.numel() for p in build(width=width).parameters()) for width in (None, 0.5, 2.0)]
    assert 450_000 < sizes[0] < 500_000
    assert sizes[1] == pytest.approx(sizes[0] / 4, rel=0.02)
    assert sizes[2] == pytest.approx(sizes[0] * 4, rel=0.02)


def test_the_width_of_an_encoders_unet_is_its_decoders() -> None:
    whole, half = build("unet_resnet18"), build("unet_resnet18", width=0.5)
    count = [sum(p.numel() for p in model.network.decoder.parameters()) for model in (whole, half)]
    assert count[1] < 0.6 * count[0]
    assert whole.network.encoder.state_dict().keys() == half.network.encoder.state_dict().keys()


def test_images_are_normalised_as_imagenets() -> None:
    model = constant([[0.0], [0.0], [0.0]])
    model(torch.full((1, 3, 1, 1), 0.5))
    expected = [(0.5 - mean) / deviation for mean, deviation in zip(MEAN, DEVIATION, strict=True)]
    assert model.network.seen.flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ({"model": "unet_resnet81"}, "unet_resnet18"),
        ({"model": "unet_tu-mobilenetv3_smal_050"}, "unet_tu-mobilenetv3_small_050"),
        ({"model": "unet_tu-hf-hub:someone/something"}, "ENCODER"),
        ({"model": "unetx"}, "ENCODER"),
        ({"model": "unet", "depth": 0.5}, r"student\.depth"),
        ({}, "neither"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_name(spec: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        build_model(ModelConfig(**spec), CLASSES, role="student", imgsz=SIZE)


def test_sizes_that_cannot_be_halved_are_refused_with_one_that_can(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="multiple of 32"):
        build(SMALL, imgsz=48)
    save_model(tiny(), tmp_path / "student.safetensors")
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_model(ModelConfig(weights=tmp_path / "student.safetensors"), CLASSES, role="teacher", imgsz=40)
    assert build("unet", imgsz=48, width=0.25)(pictures(size=48)).shape == (2, 4, 48, 48)
    with pytest.raises(ArgumentError, match="32 x 48"):
        tiny()(torch.zeros(1, 3, 20, 40))
    with pytest.raises(ArgumentError, match=r"\[B, 3, H, W\]"):
        tiny()(torch.zeros(1, 1, 32, 32))


def test_losses_of_a_sigmoid_by_hand() -> None:
    # Probabilities 1/2, 3/4 and 1/4 of labels 0, 1 and ignored.
    model = constant([[0.0, math.log(3), -math.log(3)]], ("cell",))
    losses = model(torch.zeros(1, 3, 1, 3), row(0, 1, -1))
    assert losses.keys() == {"classes", "dice"}
    assert losses["classes"].item() == pytest.approx((math.log(2) - math.log(0.75)) / 2, rel=1e-6)
    assert losses["dice"].item() == pytest.approx(1 - (2 * 0.75 + 1) / (1.25 + 1 + 1), rel=1e-6)


def test_losses_of_a_softmax_and_a_boundary_by_hand() -> None:
    # Classes 1/3 each at all three pixels, the boundary at 1/2; labels background, second class, ignored.
    model = constant([[0.0] * 3] * 4, boundary=True)
    losses = model(torch.zeros(1, 3, 1, 3), row(0, 2, -1, boundary=[True, False, True]))
    assert losses["classes"].item() == pytest.approx(math.log(3), rel=1e-6)
    first, second = 1 - 1 / (2 / 3 + 1), 1 - (2 / 3 + 1) / (2 / 3 + 1 + 1)
    assert losses["dice"].item() == pytest.approx((first + second) / 2, rel=1e-6)
    assert losses["boundary"].item() == pytest.approx(math.log(2), rel=1e-6)
    sum(losses.values()).backward()
    gradient = model.network.logits.grad[0, :, 0]
    assert gradient[:, :2].abs().min() > 0
    assert not gradient[:, 2].any()  # the ignored pixel


@pytest.mark.parametrize(
    ("classes", "logits"), [(CLASSES, [[0.0, 1.0], [0.0, 0.0], [0.0, 0.0]]), (("cell",), [[0.0, 1.0]])]
)
def test_class_weights_weigh_the_pixels_of_their_class(classes: tuple[str, ...], logits: list[list[float]]) -> None:
    weights = [1.0, 3.0, 1.0][: 1 + len(classes)]
    apart = [constant(logits, classes)(torch.zeros(1, 3, 1, 2), row(*t))["classes"] for t in ((0, -1), (-1, 1))]
    both = constant(logits, classes, class_weights=weights)(torch.zeros(1, 3, 1, 2), row(0, 1))["classes"]
    torch.testing.assert_close(both, (apart[0] + 3 * apart[1]) / 4)
    with pytest.raises(ArgumentError, match="class_weights"):
        constant(logits, classes, class_weights=[1.0])


def test_class_weights_go_by_name() -> None:
    model = build(class_weights={CLASSES[1]: 3.0, "background": 0.5})
    torch.testing.assert_close(model.class_weights, torch.tensor([0.5, 1.0, 3.0]))
    assert "class_weights" not in model.state_dict()
    assert build().class_weights is None
    with pytest.raises(ConfigError, match=r"student.class_weights: expected names out of \['background', .*'leaf'"):
        build(class_weights={"leaf": 2.0})


@pytest.mark.parametrize("classes", [("cell",), CLASSES])
def test_a_batch_without_labels_costs_nothing_and_has_a_gradient(classes: tuple[str, ...]) -> None:
    model = tiny(classes=classes)
    nothing = torch.full((2, SIZE, SIZE), -1)
    losses = model(pictures(), PixelTargets(nothing, nothing == 0))
    assert {name: loss.item() for name, loss in losses.items()} == {"classes": 0, "dice": 0, "boundary": 0}
    sum(losses.values()).backward()
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_losses_are_computed_in_float32_under_autocast() -> None:
    model = tiny()
    with torch.autocast("cpu", torch.bfloat16):
        assert model(pictures()).dtype == torch.bfloat16
        losses = model(pictures(), labels())
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_labels_that_do_not_fit_are_refused() -> None:
    model = tiny()
    with pytest.raises(ArgumentError, match="boundary: false"):
        model(pictures(), PixelTargets(labels().classes))
    with pytest.raises(ArgumentError, match="label each pixel"):
        model(pictures(), labels(size=16))


def test_it_learns_a_picture() -> None:
    torch.manual_seed(0)
    model = tiny(classes=("cell",))
    images = torch.zeros(2, 3, SIZE, SIZE)
    truth = torch.zeros(2, SIZE, SIZE, dtype=torch.long)
    truth[:, 8:20, 6:24] = 1
    images[:, :, 8:20, 6:24] = 1.0
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(40):
        loss = sum(model(images, PixelTargets(truth, truth == 1)).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = model(images)[:, 0] > 0
    assert ((found & (truth == 1)).sum() / (found | (truth == 1)).sum()) > 0.9


@pytest.mark.parametrize("name", ["unet", SMALL])
def test_a_checkpoint_says_what_it_is_of_and_gives_the_same_model(name: str, tmp_path: Path) -> None:
    model = build(name, width=0.25, boundary=False)
    model(pictures())  # statistics of the batch
    path = tmp_path / "student.safetensors"
    save_model(model, path)
    assert saved_name(path) == name
    assert ModelConfig(weights=path).family == "unet"
    loaded, origin = build_model(ModelConfig(weights=path), ("other",), role="teacher", imgsz=64)
    assert origin == f"all tensors from {path}"
    assert loaded.class_names == CLASSES
    assert (loaded.architecture.imgsz, load_model(path).architecture.imgsz) == (64, SIZE)
    torch.testing.assert_close(loaded.eval()(pictures()), model.eval()(pictures()), rtol=0, atol=0)
    torch.testing.assert_close(copy.deepcopy(loaded)(pictures()), model(pictures()), rtol=0, atol=0)
    assert loaded.architecture.pictures == "fit"  # which also files say that were written before tiles
    save_model(loaded, path, pictures="tiles")
    assert load_model(path).architecture.pictures == "tiles"


def test_a_checkpoint_of_pictures_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_model(build("unet", width=0.25), path, pictures="stripes")
    with pytest.raises(WeightsError, match="architecture of a U-Net"):
        load_model(path)


def test_plain_smp_code_loads_the_file(tmp_path: Path) -> None:
    model = build("unet_resnet18").eval()
    save_model(model, tmp_path / "student.safetensors")
    plain = smp.Unet("resnet18", encoder_weights=None, classes=4).eval()
    plain.load_state_dict(load_file(tmp_path / "student.safetensors"))
    normalised = (pictures() - torch.tensor(MEAN)[:, None, None]) / torch.tensor(DEVIATION)[:, None, None]
    torch.testing.assert_close(plain(normalised), model(pictures()))


def test_weights_beside_a_name_fill_what_fits(tmp_path: Path) -> None:
    source = tiny()
    save_model(source, tmp_path / "student.safetensors")
    torch.save(source.network.encoder.state_dict(), tmp_path / "encoder.pt")
    torch.save({"other": torch.zeros(3)}, tmp_path / "other.pt")
    torch.manual_seed(1)
    spec = {"model": "unet", "width": 0.25}
    whole, origin = build_model(
        ModelConfig(weights=tmp_path / "student.safetensors", **spec), ("cell",), role="student", imgsz=SIZE
    )
    assert "fit" in origin
    assert whole.class_names == ("cell",)
    half, _ = build_model(ModelConfig(weights=tmp_path / "encoder.pt", **spec), CLASSES, role="student", imgsz=SIZE)
    for model in (whole, half):
        torch.testing.assert_close(model.network.encoder.state_dict(), source.network.encoder.state_dict())
    torch.testing.assert_close(whole.network.decoder.state_dict(), source.network.decoder.state_dict())
    with pytest.raises(WeightsError, match="fit the model"):
        build_model(ModelConfig(weights=tmp_path / "other.pt", **spec), CLASSES, role="student", imgsz=SIZE)


GOOD = {"name": "unet", "class_names": ["disc"], "imgsz": 32, "boundary": True, "width": 0.25}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "no json",
        "[" * 100_000,
        "[]",
        json.dumps({**GOOD, "name": "unet_tu-hf-hub:someone/something"}),
        json.dumps({**GOOD, "name": "fasterrcnn_resnet50_fpn"}),
        json.dumps({**GOOD, "name": 3}),
        json.dumps({**GOOD, "class_names": "disc"}),
        json.dumps({**GOOD, "class_names": []}),
        json.dumps({**GOOD, "class_names": [1]}),
        json.dumps({**GOOD, "imgsz": True}),
        json.dumps({**GOOD, "width": 1e9}),
        json.dumps({**GOOD, "width": math.nan}),
        json.dumps({**GOOD, "boundary": 7}),
        json.dumps({**GOOD, "more": 7}),
        json.dumps(GOOD),  # whose tensors are missing
    ],
)
def test_a_hostile_file_is_refused(header: str | None, tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata=None if header is None else {METADATA: header})
    with pytest.raises(WeightsError, match="Expected"):
        load_model(path)


def test_a_missing_or_broken_file_and_a_foreign_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    with pytest.raises(WeightsError, match="none at"):
        load_model(path)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(WeightsError, match="architecture of a U-Net"):
        load_model(path)
    with pytest.raises(WeightsError, match="Linear"):
        save_model(nn.Linear(1, 1), path)


@pytest.mark.parametrize("name", ["unet", SMALL])
def test_exports_say_what_the_model_says(name: str) -> None:
    model = build(name, width=0.25)
    model(pictures())
    model.eval()
    traced = torch.jit.trace(model, pictures(1))
    others = pictures(3, 64)  # of another number and size than it was traced with
    torch.testing.assert_close(traced(others), model(others))
    file = io.BytesIO()
    axes = {0: "batch", 2: "height", 3: "width"}
    torch.onnx.export(model, (pictures(1),), file, dynamo=False, input_names=["images"], dynamic_axes={"images": axes})
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": others.numpy()})
    np.testing.assert_allclose(found, model(others).detach().numpy(), rtol=1e-3, atol=1e-4)

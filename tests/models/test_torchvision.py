"""Torchvision's detectors from a configuration, and their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn
from torchvision.models import mobilenet_v3_small, resnet18
from torchvision.models.detection import fasterrcnn_resnet50_fpn
from torchvision.ops import FrozenBatchNorm2d

from detkd.adapters.families import make_adapter
from detkd.adapters.ultralytics import import_ultralytics
from detkd.errors import ConfigError, WeightsError
from detkd.model_config import ModelConfig
from detkd.models.torchvision import BUILDERS, build_model, load_model, save_model
from tests.adapters.tiny import images, targets

CLASSES = ("disc", "square", "triangle")
SMALL = "fasterrcnn_mobilenet_v3_small_fpn"
SIZE = 64
PUBLISHED = [name for name in BUILDERS if hasattr(torchvision.models.detection, name)]
COMPACT = {"fasterrcnn_resnet18_fpn", SMALL, "fasterrcnn_yolov5n_fpn", "maskrcnn_yolov5n_fpn"}


def build(name: str = SMALL, imgsz: int = SIZE, **spec: Any) -> Any:
    torch.manual_seed(0)
    return build_model(ModelConfig(model=name, **spec), CLASSES, role="student", imgsz=imgsz)[0]


def tiny(**spec: Any) -> Any:
    return build(width=0.125, **spec)


def plain(name: str, **options: Any) -> Any:
    """A detector as torchvision itself builds it."""
    make = getattr(torchvision.models.detection, name)
    return make(weights=None, weights_backbone=None, num_classes=1 + len(CLASSES), **options)


def generator(model: Any) -> Any:
    return model.rpn.anchor_generator if hasattr(model, "rpn") else model.anchor_generator


@pytest.mark.parametrize("name", BUILDERS)
def test_every_name_builds_a_model_that_is_watched_and_trained_whole(name: str) -> None:
    model = build(name)
    adapter = make_adapter(model)
    assert adapter.class_names == CLASSES
    adapter.attach()
    with torch.no_grad():
        model.eval()
        adapter.run(images(1, SIZE))
    outputs = adapter.take_outputs()
    assert len(outputs.anchor_points) == (outputs.objectness or outputs.heads[0]).boxes.shape[1]
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in model.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names_have_torchvisions_tensors_and_at_800_pixels_its_anchors(name: str) -> None:
    model, published = build(name, imgsz=800), plain(name)
    published.load_state_dict(model.state_dict())
    if "ssd" not in name:
        for own, other in zip(generator(model).cell_anchors, generator(published).cell_anchors, strict=True):
            torch.testing.assert_close(own, other, atol=1, rtol=0.01)  # its sizes are cut to whole pixels before
    if hasattr(model, "rpn"):
        assert model.roi_heads.box_roi_pool.canonical_scale == published.roi_heads.box_roi_pool.canonical_scale


def test_published_names_find_what_torchvision_finds() -> None:
    model = build("fasterrcnn_mobilenet_v3_large_fpn", imgsz=800).eval()
    published = plain("fasterrcnn_mobilenet_v3_large_fpn", min_size=800, max_size=800, rpn_score_thresh=0.0).eval()
    published.load_state_dict(model.state_dict())
    for found in (model, published):
        found.roi_heads.score_thresh = 0.0
    with torch.no_grad():
        ours, theirs = model(images(1, 128))[0], published(images(1, 128))[0]
    torch.testing.assert_close(ours, theirs)


def test_the_compact_ones_meet_yolo_at_its_strides_with_equal_anchors() -> None:
    adapters = [make_adapter(build(name, imgsz=256)) for name in sorted(COMPACT)]
    for adapter in adapters:
        assert adapter.strides == (8, 16, 32, 64)
        # 8 strides at 800 pixels: 20.48 for stride 8 at 256, in whole pixels of each half.
        assert [shapes[1] for shapes in adapter.anchor_shapes] == [(20, 20), (40, 40), (82, 82), (164, 164)]
    smallest = build(imgsz=256)
    assert sum(parameter.numel() for parameter in smallest.parameters()) < 2_000_000
    assert smallest.roi_heads.box_roi_pool.canonical_scale == pytest.approx(224 * 256 / 800)


@pytest.mark.parametrize("name", [name for name, builder in BUILDERS.items() if builder.width is not None])
def test_the_width_scales_pyramid_and_box_head(name: str) -> None:
    model = build(name, width=0.21)
    assert model.backbone.out_channels == 56  # 53.76 to the next multiple of 8
    assert model.roi_heads.box_predictor.cls_score.in_features == 216  # 215.04
    assert model.roi_heads.box_predictor.cls_score.out_features == 4


def test_it_trains_at_a_small_size_without_resizing() -> None:
    model = tiny().train()
    seen: list[Any] = []
    model.backbone.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    losses = model(images(2, SIZE), [{k: v / 2 if k == "boxes" else v for k, v in t.items()} for t in targets(2, 0)])
    sum(losses.values()).backward()
    assert seen == [(2, 3, SIZE, SIZE)]
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(bool(torch.isfinite(loss)) for loss in losses.values())


def test_numbers_of_regions_are_the_callers_to_choose() -> None:
    torch.manual_seed(0)
    few = {"pre_nms": 30, "post_nms": 7, "sampled": 5}
    spec = ModelConfig(model=SMALL, width=0.125, proposals=few)
    model: Any = build_model(spec, CLASSES, role="student", imgsz=SIZE)[0]
    adapter = make_adapter(model)
    adapter.attach()
    model.train()(images(2, SIZE), targets(0, 0))
    trained = adapter.take_outputs()
    assert trained.regions is not None
    assert [len(boxes) for boxes in trained.regions.proposals] == [5, 5]
    assert [len(boxes) for boxes in adapter.propose(trained, (SIZE, SIZE))] == [7, 7]


def test_a_checkpoint_may_be_given_other_numbers_of_regions(tmp_path: Path) -> None:
    path, few = tmp_path / "student.safetensors", {"pre_nms": 30, "post_nms": 7, "sampled": 5}
    save_model(build_model(ModelConfig(model=SMALL, width=0.125), CLASSES, role="student", imgsz=SIZE)[0], path)
    model: Any = build_model(ModelConfig(weights=path, proposals=few), CLASSES, role="teacher", imgsz=SIZE)[0]
    assert (model.rpn._post_nms_top_n["testing"], model.roi_heads.fg_bg_sampler.batch_size_per_image) == (7, 5)
    model.eval()
    adapter = make_adapter(model)
    adapter.attach()
    model(images(2, SIZE))
    assert [len(boxes) for boxes in adapter.propose(adapter.take_outputs(), (SIZE, SIZE))] == [7, 7]
    one_stage = tmp_path / "one.safetensors"
    save_model(
        build_model(ModelConfig(model="ssdlite320_mobilenet_v3_large"), CLASSES, role="student", imgsz=SIZE)[0], one_stage
    )
    with pytest.raises(ConfigError, match="ssdlite320_mobilenet_v3_large of .* proposes no regions"):
        build_model(ModelConfig(weights=one_stage, proposals=few), CLASSES, role="teacher", imgsz=SIZE)


def test_yolo_weights_fill_the_body_of_its_detector(tmp_path: Path) -> None:
    import_ultralytics()
    from ultralytics.nn.tasks import DetectionModel

    torch.manual_seed(3)
    yolo = DetectionModel("yolov5n.yaml", nc=7, verbose=False)
    torch.save({name: value.half() for name, value in yolo.state_dict().items()}, tmp_path / "yolo.pt")
    spec = ModelConfig(model="fasterrcnn_yolov5n_fpn", width=0.125, weights=tmp_path / "yolo.pt")
    model: Any
    model, origin = build_model(spec, CLASSES, role="teacher", imgsz=SIZE)
    body = sum(len(layer.state_dict()) for layer in yolo.model[:10])
    assert origin.startswith(f"{body} of the file's {len(yolo.state_dict())} tensors fit")
    model.eval()
    x = images(1, SIZE)
    with torch.no_grad():
        expected, levels = model.transform(list(x))[0].tensors, []
        torch.testing.assert_close(expected, x)  # YOLO normalises nothing
        for index, layer in enumerate(yolo.eval().model[:10]):
            expected = layer(expected)
            levels += [expected] if index in {4, 6, 9} else []
        for own, other in zip(model.backbone.body(x).values(), levels, strict=True):
            torch.testing.assert_close(own, other, atol=5e-2, rtol=5e-2)  # the file is in half precision


@pytest.mark.parametrize(("name", "make"), [("fasterrcnn_resnet18_fpn", resnet18), (SMALL, mobilenet_v3_small)])
def test_a_classifiers_weights_fill_the_body(tmp_path: Path, name: str, make: Any) -> None:
    torch.manual_seed(3)
    classifier = make(weights=None)
    torch.save(classifier.state_dict(), tmp_path / "imagenet.pth")
    model = build(name, weights=tmp_path / "imagenet.pth")
    body = getattr(classifier, "features", classifier)
    own = {key: value for key, value in body.state_dict().items() if not key.startswith("fc.")}
    torch.testing.assert_close(dict(model.backbone.body.state_dict()), own)


def test_a_checkpoint_rebuilds_itself_and_finds_the_same(tmp_path: Path) -> None:
    model = tiny().eval()
    make_adapter(model).attach()
    model.to(memory_format=torch.channels_last)  # as a teacher's layers lie
    save_model(model, tmp_path / "runs" / "student.safetensors")
    for again in (
        load_model(tmp_path / "runs" / "student.safetensors"),
        build_model(ModelConfig(weights=tmp_path / "runs" / "student.safetensors"), ["a"], role="student", imgsz=SIZE)[0],
        build_model(ModelConfig(model=str(tmp_path / "runs" / "student.safetensors")), ["a"], role="x", imgsz=SIZE)[0],
    ):
        assert again.architecture == model.architecture
        assert make_adapter(again).class_names == CLASSES
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(images(1, SIZE)), model(images(1, SIZE)))


def test_a_checkpoint_is_fitted_to_the_size_that_it_is_used_at(tmp_path: Path) -> None:
    model = tiny()
    save_model(model, tmp_path / "student.safetensors")
    again: Any
    again, _ = build_model(ModelConfig(weights=tmp_path / "student.safetensors"), ["a"], role="student", imgsz=320)
    fresh = tiny(imgsz=320)
    assert again.architecture == fresh.architecture
    for own, other in zip(generator(again).cell_anchors, generator(fresh).cell_anchors, strict=True):
        torch.testing.assert_close(own, other)
    torch.testing.assert_close(again.state_dict(), model.state_dict())
    with torch.no_grad():
        assert again.transform([images(1, 320)[0]])[0].tensors.shape == (1, 3, 320, 320)  # not resized


def test_a_checkpoint_holds_the_students_tensors_alone_and_loads_with_plain_torchvision(tmp_path: Path) -> None:
    model = build("fasterrcnn_mobilenet_v3_large_320_fpn", imgsz=64)
    save_model(model, tmp_path / "student.safetensors")
    state = load_file(tmp_path / "student.safetensors")
    assert state.keys() == model.state_dict().keys()
    plain("fasterrcnn_mobilenet_v3_large_320_fpn").load_state_dict(state)


def test_a_checkpoint_beside_a_name_fills_what_fits_its_classes(tmp_path: Path) -> None:
    source = tiny()
    save_model(source, tmp_path / "student.safetensors")
    spec = ModelConfig(model=SMALL, width=0.125, weights=tmp_path / "student.safetensors")
    model: Any
    model, origin = build_model(spec, ["disc"], role="student", imgsz=128)
    total = len(source.state_dict())
    assert origin.startswith(f"{total - 4} of the file's {total} tensors fit")  # but the two layers with classes
    torch.testing.assert_close(model.roi_heads.box_head.state_dict(), source.roi_heads.box_head.state_dict())
    assert model.class_names == ("disc",)


def test_an_old_torchvision_checkpoint_fills_the_whole_detector(tmp_path: Path) -> None:
    torch.manual_seed(3)
    source = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    renamed = {
        name.replace("_blocks.0.0.", "_blocks.0.").replace("rpn.head.conv.0.0.", "rpn.head.conv."): value
        for name, value in source.state_dict().items()
    }
    torch.save(renamed, tmp_path / "coco.pth")
    model = build("fasterrcnn_resnet50_fpn", weights=tmp_path / "coco.pth")
    torch.testing.assert_close(model.backbone.state_dict(), source.backbone.state_dict())
    torch.testing.assert_close(model.rpn.state_dict(), source.rpn.state_dict())


def test_what_cannot_be_built_is_refused_with_all_faults() -> None:
    def refused(match: str, **spec: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            build_model(ModelConfig(**spec), CLASSES, role="teacher", imgsz=SIZE)

    refused("teacher: expected `model`")
    refused(r"teacher.model: expected one of .*, but got 'fasterrcnn_resnet99'", model="fasterrcnn_resnet99")
    refused("teacher.width: fcos_resnet50_fpn has one width only", model="fcos_resnet50_fpn", width=0.5)
    refused("(?s)depth: .* have none.*fcos_resnet50_fpn has one", model="fcos_resnet50_fpn", width=0.5, depth=0.5)
    few = {"pre_nms": 1, "post_nms": 1, "sampled": 1}
    refused("teacher.proposals: .* no regions", model="ssdlite320_mobilenet_v3_large", proposals=few)


def test_weights_of_no_use_are_refused(tmp_path: Path) -> None:
    def refused(match: str, **spec: Any) -> None:
        with pytest.raises(WeightsError, match=match):
            build_model(ModelConfig(**spec), CLASSES, role="student", imgsz=SIZE)

    refused("there is none at", weights=tmp_path / "missing.safetensors")
    refused("there is none at", model=SMALL, width=0.125, weights=tmp_path / "missing.pt")
    torch.save(nn.Linear(1, 1), tmp_path / "pickled.pt")
    refused("is a pickled object", model=SMALL, width=0.125, weights=tmp_path / "pickled.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    refused("none of the 1 tensors of .*other", model=SMALL, width=0.125, weights=tmp_path / "other.pt")
    refused("says its architecture", weights=tmp_path / "other.pt")
    for number, text in enumerate(("[]", "{", '{"name": "x"}', '{"name": "x", "imgsz": 64, "colour": 1}')):
        path = tmp_path / f"odd{number}.safetensors"
        save_file({"a": torch.zeros(1)}, path, metadata={"detkd.architecture": text})
        refused("says its architecture", weights=path)
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    refused("says its architecture", weights=tmp_path / "bare.safetensors")


@pytest.mark.parametrize(
    "changes",
    [
        {"imgsz": "64"},
        {"imgsz": 10**12},
        {"width": 1e9},
        {"width": "wide"},
        {"class_names": [1]},
        {"proposals": {"pre_nms": 0, "post_nms": 1, "sampled": 1}},
        {"proposals": None},
    ],
)
def test_the_header_of_a_foreign_checkpoint_builds_nothing_absurd(tmp_path: Path, changes: dict[str, Any]) -> None:
    counts = {"pre_nms": 1, "post_nms": 1, "sampled": 1}
    sound = {"name": SMALL, "class_names": ["disc"], "imgsz": 64, "width": 0.125, "proposals": counts}
    path = tmp_path / "student.safetensors"
    for header, match in ((sound, "Missing key"), ({**sound, **changes}, "says its architecture|give `proposals`")):
        save_file({"a": torch.zeros(1)}, path, metadata={"detkd.architecture": json.dumps(header)})
        with pytest.raises(WeightsError, match=match):
            load_model(path)


def test_a_checkpoint_of_another_release_is_named(tmp_path: Path) -> None:
    model = tiny()
    save_model(model, tmp_path / "student.safetensors")
    state = load_file(tmp_path / "student.safetensors")
    text = model.architecture.to_json()
    save_file(state, tmp_path / "a.safetensors", metadata={"detkd.architecture": text.replace(SMALL, "newer_fpn")})
    with pytest.raises(WeightsError, match="is of 'newer_fpn'"):
        load_model(tmp_path / "a.safetensors")
    state.popitem()
    save_file(state, tmp_path / "b.safetensors", metadata={"detkd.architecture": text})
    with pytest.raises(WeightsError, match="Missing key"):
        load_model(tmp_path / "b.safetensors")


def test_a_model_of_unknown_make_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="says its `architecture`, but Linear does not"):
        save_model(nn.Linear(1, 1), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())

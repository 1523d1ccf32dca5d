"""Runs of a U-Net from configuration to results: alone, and with teachers of every family."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from detkd.adapters.ultralytics import load_yolo
from detkd.data.segmentation import SegmentationDataset
from detkd.engines import run as running
from detkd.engines.lightning.segmentation import SegmentationTraining
from detkd.engines.run import run_config
from detkd.engines.segmentation import _painted, _with_mask, load_data
from detkd.errors import DataError
from detkd.evaluation.instances import InstanceSettings
from detkd.evaluation.segmentation import evaluate_segmentation
from detkd.models.plain_unet import PlainUNet
from detkd.models.unet import load_model, save_model
from detkd.report.console import TrainingProgress
from tests.engines.conftest import CutError, write_unet
from tests.engines.runs import checkpoint_of, last, results, same, tensors
from tests.engines.segmented import QUICK, SHAPES, Watched, configure_unet

if TYPE_CHECKING:
    from collections.abc import Mapping


pytestmark = pytest.mark.usefixtures("one_thread_for_a_module")

OWN = {"classes", "dice", "boundary"}
ONCE = {"epochs": 1, "imgsz": 64, "batch": 2}


def run(data: Path, output: Path, *, resume: bool = False, **changes: Any) -> Path:
    return run_config(configure_unet(data, output=str(output), **changes), resume=resume)


def taught(weights: Path, terms: Any = None, **teacher: Any) -> dict[str, Any]:
    return {
        "teacher": {"weights": str(weights), **teacher},
        "terms": terms or {"pixel_kl": {"temperature": 1.0}, "pkd": {}},
    }


def terms(row: Mapping[str, float]) -> set[str]:
    """Names of the distillation terms of an epoch."""
    return {name.removeprefix("train/") for name in row if name.startswith("train/")} - OWN


def timeless(folder: Path) -> list[dict[str, float]]:
    return [{**row, "time": 0} for row in results(folder)["history"]]


@pytest.fixture(scope="module")
def alone(discs: Path, tmp_path_factory: pytest.TempPathFactory, one_thread_for_a_module: None) -> Path:
    """A student that was trained on labels alone."""
    return run(discs, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module")
def shaped(shapes: Path, tmp_path_factory: pytest.TempPathFactory, one_thread_for_a_module: None) -> Path:
    """The same of two classes, with an ignored corner in each picture."""
    return run(shapes, tmp_path_factory.mktemp("shaped"))


def test_a_student_alone_leaves_a_checkpoint_that_loads_in_plain_pytorch(alone: Path) -> None:
    found = results(alone)
    assert (found["task"], found["family"], found["teachers"], found["distill_weights"]) == ("segment", "unet", [], [])
    assert found["data"]["images"] == {"train": 6, "val": 6}
    assert (found["checkpoint"], found["epochs"]) == ("student.safetensors", 2)
    metrics = found["student"]["metrics"]["val"]
    assert {"AP", "AP50", "AR100", "mIoU", "Dice", "boundary_F1"} < set(metrics)
    assert set(metrics["per_class"]["disc"]) == {"AP", "IoU", "Dice", "boundary_F1"}
    InstanceSettings.model_validate(metrics["instances"])
    assert found["student"]["gflops"] > 0
    for row in found["history"]:
        assert {name.removeprefix("train/") for name in row if name.startswith("train/")} == OWN
        assert {"metrics/AP", "metrics/mIoU", "metrics/Dice"} <= set(row)
    assert {path.name for path in alone.iterdir()} == {
        ".lock",
        "config.yaml", "curves.json", "lightning", "pictures", "report.html", "results.json", "segments.png",
        "student.safetensors", "training.png",
    }  # fmt: skip
    with Image.open(alone / "segments.png") as picture:
        assert min(picture.size) > 100
    plain = PlainUNet(2, 0.25)
    plain.load_state_dict(tensors(alone))
    assert found["student"]["parameters"] == sum(parameter.numel() for parameter in plain.parameters())


def test_the_numbers_reported_are_those_of_the_checkpoint(alone: Path, discs: Path) -> None:
    found = results(alone)["student"]["metrics"]["val"]
    settings = InstanceSettings.model_validate(found["instances"])
    model, dataset = load_model(alone / "student.safetensors"), SegmentationDataset.load(discs)
    direct = evaluate_segmentation(model, dataset, "val", imgsz=64, settings=settings)
    assert {name: found[name] for name in ("AP", "mIoU", "Dice", "boundary_F1")} == pytest.approx(
        {name: direct[name] for name in ("AP", "mIoU", "Dice", "boundary_F1")}
    )


def test_losses_fall_and_pixels_are_learnt(discs: Path, tmp_path: Path) -> None:
    found = results(run(discs, tmp_path, train={"epochs": 8, "imgsz": 64, "batch": 2}))
    first, final = found["history"][0], found["history"][-1]
    assert all(final[f"train/{name}"] < first[f"train/{name}"] for name in OWN)
    assert sum(final[f"train/{name}"] for name in OWN) < 0.8 * sum(first[f"train/{name}"] for name in OWN)
    assert found["student"]["metrics"]["val"]["Dice"] > 0.7
    assert found["student"]["metrics"]["val"]["AP50"] > 0.3


TEACHERS = {
    "a U-Net": "shapes_teacher",
    "a YOLO": "finding_yolo",
    "a segmenting YOLO": "yolo_segmenter",
    "a Faster R-CNN": "finding_rcnn",
}


@pytest.mark.parametrize("kind", TEACHERS)
def test_a_teacher_of_any_family_changes_the_student_and_not_itself(
    shapes: Path, shaped: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    weights: Path = request.getfixturevalue(TEACHERS[kind])
    before, watched = weights.read_bytes(), Watched(monkeypatch)
    folder = run(shapes, tmp_path, distill=taught(weights), train={"epochs": 4, "imgsz": 64, "batch": 2})
    assert weights.read_bytes() == before
    watched.check()
    found = results(folder)
    for row, shares in zip(found["history"], found["distill_weights"], strict=True):
        assert terms(row) == set(shares) == {"pixel_kl", "pkd"}
        assert all(row[f"train/{name}"] > 0 and shares[name] > 0 for name in shares)
    first, final = found["history"][0], found["history"][-1]
    assert final["train/pkd"] < first["train/pkd"]
    assert sum(final[f"train/{name}"] for name in OWN) < sum(first[f"train/{name}"] for name in OWN)
    assert not same(last(folder), last(shaped))
    # Nothing of the teacher, and nothing that met it, is in what is kept of the student.
    assert last(folder).keys() == last(shaped).keys()
    assert tensors(folder).keys() == tensors(shaped).keys()
    assert set(watched.aligners) < set(checkpoint_of(folder)["distiller"])
    PlainUNet(4, 0.25).load_state_dict(tensors(folder))
    (teacher,) = found["teachers"]
    assert 0 <= teacher["metrics"]["val"]["AP"] <= 1
    assert teacher["parameters"] > found["student"]["parameters"] or kind != "a U-Net"


def test_every_step_sees_what_the_teacher_draws(shapes: Path, yolo_segmenter: Path, tmp_path: Path) -> None:
    """A detector of which nothing is drawn would teach by its features alone, and nobody would see it."""
    silent = load_yolo(yolo_segmenter).model.float()
    with torch.no_grad():
        for level in silent.model[-1].cv3:
            level[-1].bias.fill_(-20.0)
    torch.save({"model": silent, "train_args": {"task": "segment", "imgsz": 64}}, tmp_path / "silent.pt")
    for weights, speaks in ((yolo_segmenter, True), (tmp_path / "silent.pt", False)):
        distill = taught(weights, {"pixel_kl": {}})
        folder = run(shapes, tmp_path, name=weights.stem, distill=distill, train=ONCE)
        assert (results(folder)["history"][0]["train/pixel_kl"] > 0) == speaks


@pytest.mark.parametrize("file", ["the first epoch", "the second epoch"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    discs: Path, unet_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    changes = {
        "distill": taught(unet_teacher),
        "train": {"epochs": 3, "imgsz": 64, "batch": 2},
        "optim": {**QUICK, "ema": 0.9, "schedule": "cosine"},
    }
    whole = run(discs, tmp_path / "whole", **changes)
    epoch, show = 1 if file == "the first epoch" else 2, TrainingProgress.epoch

    def cut(self: Any, done: int, values: Any) -> None:
        show(self, done, values)
        if done == epoch:
            raise CutError

    with monkeypatch.context() as patch, pytest.raises(CutError):
        patch.setattr(TrainingProgress, "epoch", cut)
        run(discs, tmp_path, **changes)
    assert checkpoint_of(tmp_path / "run")["epoch"] == epoch - 1
    assert not (tmp_path / "run" / "results.json").exists()
    folder = run(discs, tmp_path, resume=True, **changes)
    assert same(last(folder), last(whole))
    assert same(tensors(folder), tensors(whole))
    assert same(checkpoint_of(folder)["distiller"], checkpoint_of(whole)["distiller"])
    assert timeless(folder) == timeless(whole)
    assert results(folder)["distill_weights"] == results(whole)["distill_weights"]


def test_half_precision_trains(discs: Path, unet_teacher: Path, tmp_path: Path) -> None:
    half, whole = (
        run(discs, tmp_path, name=precision, distill=taught(unet_teacher), trainer={"precision": precision}, train=ONCE)
        for precision in ("bf16-mixed", "32-true")
    )
    assert all(value.dtype == torch.float32 for value in tensors(half).values() if value.is_floating_point())
    (first,), (second,) = (results(folder)["history"] for folder in (half, whole))
    for name in (*OWN, "pixel_kl", "pkd"):
        assert first[f"train/{name}"] == pytest.approx(second[f"train/{name}"], rel=0.05), name
    assert first["train/classes"] != second["train/classes"]


def test_labels_of_a_share_are_used_in_as_many_steps_and_a_teacher_speaks_of_all_pictures(
    discs: Path, unet_teacher: Path, tmp_path: Path
) -> None:
    half = {"labelled": 0.5}
    changes = {"segment": half, "train": {"epochs": 2, "imgsz": 64, "batch": 1}}
    alone = run(discs, tmp_path, name="alone", **changes)
    distilled = run(discs, tmp_path, name="distilled", distill=taught(unet_teacher), **changes)
    steps = [checkpoint_of(folder)["global_step"] for folder in (alone, distilled)]
    assert steps == [12, 12]
    assert all(math.isfinite(value) for row in results(distilled)["history"] for value in row.values())
    task, dataset = SegmentationTraining(), SegmentationDataset.load(discs)
    shown = [
        [image.path.stem for image in task.pictures(configure_unet(discs, **given), dataset, None).images]
        for given in ({"segment": half}, {"segment": half, "distill": taught(unet_teacher)})
    ]
    assert shown == [["0", "2", "4"], ["0", "1", "2", "3", "4", "5"]]
    labelled = task.pictures(configure_unet(discs, segment=half, distill=taught(unet_teacher)), dataset, None)
    silent = [bool((labelled[index, 0].targets.classes < 0).all()) for index in range(6)]
    assert silent == [False, True] * 3
    for share, expected in ((1 / 3, [1.5, 0.75, 0.75] * 2), (0.5, [1.0] * 6)):
        config = configure_unet(discs, segment={"labelled": share}, distill=taught(unet_teacher))
        assert task.repeats(dataset, task.pictures(config, dataset, None)) == pytest.approx(expected)  # half are labelled
    few = task.pictures(configure_unet(discs, segment={"labelled": 1 / 3}), dataset, None)
    assert task.repeats(dataset, few) == pytest.approx([3.0, 3.0])


def test_the_best_epoch_is_not_chosen_by_labels_that_are_not_to_be_used(discs: Path, tmp_path: Path) -> None:
    path = tmp_path / "data.yaml"
    folder = discs if discs.is_dir() else discs.parent
    path.write_text(f"path: {folder}\ntrain: images/train\nnames: [disc]\nformat: instances\n")
    config = configure_unet(path, segment={"labelled": 0.5}, evaluate=["train"])
    with pytest.raises(DataError, match="expected a split `val`"):
        load_data(config)


def test_a_run_that_is_judged_every_second_epoch_reports_all_the_same(discs: Path, tmp_path: Path) -> None:
    folder = run(discs, tmp_path, optim={**QUICK, "judge_every": 2}, train={"epochs": 5, "imgsz": 64, "batch": 2})
    rows = results(folder)["history"]
    assert [row["epoch"] for row in rows if "metrics/AP" in row] == [2, 4, 5]
    assert all("train/classes" in row for row in rows)
    header, *lines = (folder / "lightning" / "results.csv").read_text().splitlines()
    column = header.split(",").index("metrics/AP")
    assert [line.split(",")[column] == "nan" for line in lines] == [True, False, True, False, False]
    assert (folder / "training.png").stat().st_size > 0
    best = max((row for row in rows if "metrics/AP" in row), key=lambda row: row["metrics/AP"])
    metrics = evaluate_segmentation(
        load_model(folder / "student.safetensors"),
        SegmentationDataset.load(discs),
        "val",
        imgsz=64,
        settings=InstanceSettings.model_validate({}),
    )
    assert metrics["AP"] == pytest.approx(best["metrics/AP"])


@pytest.mark.parametrize(("ensemble", "other"), [("mean", "finding_yolo"), ("ca_mkd", "finding_rcnn")])
def test_teachers_of_several_families_teach_together(
    shapes: Path, shapes_teacher: Path, tmp_path: Path, request: pytest.FixtureRequest, ensemble: str, other: str
) -> None:
    teachers = [{"weights": str(shapes_teacher)}, {"weights": str(request.getfixturevalue(other)), "share": 3.0}]
    kinds = {"pixel_kl": {}, "pkd": {}}
    several = results(run(shapes, tmp_path, distill={"teachers": teachers, "ensemble": ensemble, "terms": kinds}))
    assert all(row[f"train/{name}"] > 0 for row in several["history"] for name in kinds)
    first, second = (teacher["metrics"]["val"] for teacher in several["teachers"])
    assert "mIoU" in first
    assert "mIoU" not in second
    assert second["AP"] is not None
    one = results(run(shapes, tmp_path, name="one", distill={"teacher": teachers[0], "terms": kinds}))
    for name in kinds:
        assert one["history"][0][f"train/{name}"] != pytest.approx(several["history"][0][f"train/{name}"], rel=1e-3)


def test_a_teacher_that_errs_far_more_than_the_other_has_no_say(
    shapes: Path, shapes_teacher: Path, finding_yolo: Path, tmp_path: Path
) -> None:
    """Its share is 0 to the last digit, which must not divide anything."""
    teachers = [{"weights": str(shapes_teacher)}, {"weights": str(finding_yolo)}]
    kinds = {"pixel_kl": {}}
    both, one = (
        results(run(shapes, tmp_path, name=name, distill={**distill, "terms": kinds}, train=ONCE))
        for name, distill in (
            ("both", {"teachers": teachers, "ensemble": "ca_mkd"}),
            ("one", {"teacher": teachers[0]}),
        )
    )
    names = [f"train/{name}" for name in (*OWN, "pixel_kl")]
    assert [both["history"][0][name] for name in names] == [one["history"][0][name] for name in names]


def test_weights_are_learnt_where_that_is_asked_for(discs: Path, unet_teacher: Path, tmp_path: Path) -> None:
    distill = {**taught(unet_teacher), "balance": "uncertainty"}
    folder = run(discs, tmp_path, distill=distill)
    first, second = results(folder)["distill_weights"]
    assert all(first[name] > 0 and first[name] != second[name] for name in ("pixel_kl", "pkd"))
    assert tensors(folder).keys() == PlainUNet(2, 0.25).state_dict().keys()


def test_a_teacher_may_see_larger_pictures(
    discs: Path, unet_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, ...]] = []
    build = running.build_teacher

    def watch(*arguments: Any) -> Any:
        teacher, origin = build(*arguments)
        teacher.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape[1:])))
        return teacher, origin

    monkeypatch.setattr(running, "build_teacher", watch)
    found = results(run(discs, tmp_path, distill=taught(unet_teacher, scale=2.0), train=ONCE))
    assert (3, 128, 128) in seen
    assert seen[-1] == (3, 128, 128)  # when it is judged, too
    assert all(found["history"][0][f"train/{name}"] > 0 for name in ("pixel_kl", "pkd"))


def test_classes_are_matched_by_a_map_and_those_of_the_teacher_alone_are_background(shapes: Path, tmp_path: Path) -> None:
    weights = write_unet(tmp_path, ("square", "ring", "circle"))
    model = load_model(weights)
    with torch.no_grad():  # sees circles everywhere
        model.network.segmentation_head.weight.zero_()
        model.network.segmentation_head.bias.copy_(torch.tensor([0.0, 0.0, 0.0, 9.0, -9.0]))
    save_model(model, weights)
    found = results(run(shapes, tmp_path, distill=taught(weights, classes={"disc": "circle"}), train=ONCE))
    assert found["history"][0]["train/pixel_kl"] > 0
    metrics = found["teachers"][0]["metrics"]["val"]["per_class"]
    assert set(metrics) == set(SHAPES)
    assert metrics["disc"]["Dice"] > 0.1
    assert metrics["square"]["Dice"] == 0


def test_ignored_regions_and_margins_reach_the_student_without_a_label(shapes: Path) -> None:
    dataset = SegmentationDataset.load(shapes)
    pictures = SegmentationTraining().pictures(configure_unet(shapes, augment=[]), dataset, None)
    classes = pictures[0, 0].targets.classes[0]  # 64 x 72 pixels scaled to 57 x 64
    assert (classes[:13, -13:] == -1).all()
    assert (classes[57:] == -1).all()
    assert set(classes[15:56].unique().tolist()) == {0, 1, 2}


def test_the_student_of_a_run_is_exported_with_equal_outputs(shaped: Path, tmp_path: Path) -> None:
    model = load_model(shaped / "student.safetensors").eval()
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model(images)
        scripted = torch.jit.trace(model, images)  # type: ignore[no-untyped-call]
        scripted.save(str(tmp_path / "student.ts"))
        torch.testing.assert_close(torch.jit.load(str(tmp_path / "student.ts"))(images), wanted)
        torch.onnx.export(model, (images,), str(tmp_path / "student.onnx"), dynamo=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)


def test_the_detections_of_a_teacher_are_drawn_with_the_surest_on_top() -> None:
    def found(score: float, category: int, left: int) -> dict[str, Any]:
        return _with_mask({"image_id": 7, "category_id": category, "bbox": [left, 0, 2, 1], "score": score}, 1, 4)

    truth = {"categories": [{"id": 5, "name": "disc"}, {"id": 9, "name": "square"}]}
    other = {**found(0.9, 5, 0), "image_id": 8}
    unsure = found(0.4, 5, 0)
    labels = _painted([found(0.9, 9, 1), found(0.6, 5, 0), other, unsure], {"id": 7, "height": 1, "width": 4}, truth)
    assert labels.classes.tolist() == [[1, 2, 2, 0]]
    assert labels.instances.tolist() == [[1, 2, 2, 0]]
    assert labels.labels.tolist() == [0, 1]

"""Exported students say what the students say, or nothing is exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from detkd.errors import ConfigError, ExportError, WeightsError
from detkd.evaluation.cost import median_times
from detkd.export import exporting
from detkd.export.exporting import export_student
from detkd.export.students import load_student
from detkd.models.unet import load_model

ALL = ("onnx", "torchscript", "torch_export")

pytestmark = pytest.mark.usefixtures("_few_rounds")


@pytest.fixture
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkd.evaluation.cost.ROUNDS", 1)
    monkeypatch.setattr("detkd.evaluation.cost.WARM_UP", 0)


def picture(folder: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "picture.png")
    return folder / "picture.png"


@pytest.mark.parametrize("name", ["checkpoint", "yolo_segmenter"])
def test_a_yolo_has_all_formats_for_batches(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    weights = request.getfixturevalue(name)
    before = sorted(weights.parent.iterdir())
    exported, eager = export_student(weights, ALL, tmp_path, batch=2, pictures=[picture(tmp_path)])
    assert {one.path.name for one in exported} == {"teacher.onnx", "teacher.torchscript", "teacher.pt2"}
    assert all(one.path.stat().st_size == round(one.megabytes * 1e6) for one in exported)
    assert all(one.difference < 1e-4 and one.milliseconds > 0 and one.found > 0 for one in exported)
    assert eager > 0
    assert sorted(weights.parent.iterdir()) == before, "ultralytics writes beside the checkpoint that it is given"
    session = onnxruntime.InferenceSession(str(tmp_path / "teacher.onnx"))
    assert session.get_inputs()[0].shape == [2, 3, 64, 64]
    assert "disc" in session.get_modelmeta().custom_metadata_map["names"]


def test_a_yolo_takes_pictures_of_any_number_and_size_where_it_is_asked_to(checkpoint: Path, tmp_path: Path) -> None:
    ((exported,), _) = export_student(checkpoint, ("onnx",), tmp_path, dynamic=True)
    assert exported.difference < 1e-4
    session = onnxruntime.InferenceSession(str(exported.path))
    assert session.run(None, {"images": np.zeros((3, 3, 96, 32), np.float32)})[0].shape == (3, 6, 12 * 4 + 6 * 2 + 3)


def test_a_faster_rcnn_is_exported_with_what_it_finds(finding_rcnn: Path, tmp_path: Path) -> None:
    exported, _ = export_student(finding_rcnn, ("onnx", "torchscript"), tmp_path)
    assert all(one.difference < 1e-3 and one.found > 0 for one in exported)
    outputs = onnxruntime.InferenceSession(str(tmp_path / "student.onnx")).get_outputs()
    assert [output.name for output in outputs] == ["boxes", "labels", "scores"]
    read = torch.jit.load(str(tmp_path / "student.torchscript"))
    boxes, labels, scores = read(torch.rand(1, 3, 64, 64))
    assert len(boxes) == len(labels) == len(scores)


@pytest.mark.parametrize("name", ["unet_teacher", "encoder_unet"])
def test_a_unet_takes_pictures_of_any_number_and_size(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    weights: Path = request.getfixturevalue(name)
    exported, _ = export_student(weights, ALL, tmp_path, dynamic=True)
    assert all(one.difference < 1e-4 for one in exported)
    model = load_model(weights).eval()
    images = torch.rand(3, 3, 2 * model.stride, 3 * model.stride)
    with torch.no_grad():
        wanted = model(images)
    session = onnxruntime.InferenceSession(str(tmp_path / "student.onnx"))
    (found,) = session.run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-4)
    program = torch.export.load(tmp_path / "student.pt2").module()
    torch.testing.assert_close(program(images), wanted)


def test_a_classifier_takes_batches_of_any_size(classifier: Path, tmp_path: Path) -> None:
    exported, _ = export_student(classifier, ALL, tmp_path, dynamic=True, pictures=[picture(tmp_path)])
    assert all(one.difference < 1e-5 for one in exported)
    shape = onnx.load(str(tmp_path / "student.onnx")).graph.input[0].type.tensor_type.shape.dim
    assert shape[0].dim_param
    assert [size.dim_value for size in shape[1:]] == [3, 32, 32]


def test_a_reader_of_sentences_is_exported_for_sentences_of_all_lengths(lstm: Path, tmp_path: Path) -> None:
    exported, _ = export_student(lstm, ("onnx", "torchscript"), tmp_path, batch=3, dynamic=True)
    assert all(one.difference < 1e-5 for one in exported)


def test_what_says_something_else_is_refused_and_not_kept(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "student.torchscript").write_bytes(b"an earlier one")
    with pytest.raises(ExportError, match=r"torchscript: .* differ from the student's by -1 .* but they differ by 0"):
        export_student(classifier, ("torchscript",), tmp_path, tolerance=-1)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier one"]


def test_a_student_whose_export_changes_is_found_out(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = load_student(classifier)
    monkeypatch.setattr(exporting, "load_student", lambda *_: student)
    forward = student.model.forward
    shown = iter([0.0, 0.0, 1.0])  # the third call is the one that is traced
    monkeypatch.setattr(student.model, "forward", lambda inputs: forward(inputs) + next(shown))
    with pytest.raises(ExportError, match="torchscript: expected outputs that differ"):
        export_student(classifier, ("torchscript",), tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_a_family_cannot_have_is_one_line_that_says_what_to_take(
    ssdlite: Path, lstm: Path, checkpoint: Path, classifier: Path, encoder_unet: Path, tmp_path: Path
) -> None:
    faults = [
        (ssdlite, ("torch_export",), {}, ExportError, "torch_export: how many boxes .* Take onnx or torchscript"),
        (lstm, ("torch_export",), {}, ExportError, "torch_export: sentences of an LSTM .* Take onnx or torchscript"),
        (
            checkpoint,
            ("torch_export",),
            {"dynamic": True},
            ExportError,
            "cannot be exported so: .* Try onnx or torchscript",
        ),
        (ssdlite, ("onnx",), {"dynamic": True}, ConfigError, "--dynamic: this student takes one picture of one size"),
        (ssdlite, ("onnx",), {"batch": 2}, ConfigError, "--batch: expected 1 for this student, but got 2"),
        (lstm, ("onnx",), {"pictures": [tmp_path]}, ConfigError, "--picture: this student reads sentences"),
        (checkpoint, ("onnx",), {"imgsz": 70}, ConfigError, "--imgsz: expected a multiple of 32 pixels, but got 70"),
        (encoder_unet, ("onnx",), {"imgsz": 70}, ConfigError, "--imgsz: expected a multiple of 32 pixels, but got 70"),
        (classifier, ("onnx",), {"imgsz": 16}, ConfigError, "--imgsz: expected 32 pixels or more"),
        (tmp_path / "none.pt", ("onnx",), {}, WeightsError, "there is none at"),
    ]
    for weights, formats, changes, kind, says in faults:
        with pytest.raises(kind, match=says) as error:
            export_student(weights, formats, tmp_path / "out", **changes)
        assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_missing_packages_are_named(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ConfigError, match=r"onnx: onnxscript is not installed: pip install 'detkd\[export\]'"):
        export_student(classifier, ("onnx",), tmp_path)


def test_times_are_medians_of_calls_that_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detkd.evaluation.cost.ROUNDS", 3)
    monkeypatch.setattr("detkd.evaluation.cost.WARM_UP", 1)
    called: list[str] = []
    times = median_times({name: lambda name=name: called.append(name) for name in "ab"})
    assert called == ["a", "b"] * 4
    assert set(times) == {"a", "b"}

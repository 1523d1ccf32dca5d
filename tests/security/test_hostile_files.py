"""Hostile files: what they carry is never run, and what they say is refused in one line."""

from __future__ import annotations

import ast
import io
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import nn

from detkd.adapters.ultralytics import import_ultralytics, load_yolo
from detkd.config import load_config
from detkd.data.class_folders import PictureDataset
from detkd.data.detection import DetectionDataset, check_dataset
from detkd.data.pictures import read_picture
from detkd.engines.families import build_model
from detkd.engines.resuming.ultralytics import epochs_left, read_state
from detkd.engines.run import run_config
from detkd.errors import ConfigError, DataError, DetkdError, WeightsError
from detkd.model_config import ModelConfig
from detkd.report.console import TrainingProgress
from detkd.weights import read_state_dict
from tests.engines.classes import TINY as TINY_CLASSES
from tests.engines.classes import configure_classes, write_pictures
from tests.engines.conftest import NAMES, TINY, TINY_RCNN, configure
from tests.engines.segmented import TINY_UNET
from tests.security.hostile import mark_of, write_checkpoint, write_label_cache, write_pickle

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 10)}]}}\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
DOORS = ("eval", "exec", "compile", "__import__")


@pytest.fixture
def imported_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """ultralytics was imported before detkd could ask it for care."""
    import_ultralytics()
    from ultralytics.nn import tasks

    monkeypatch.setattr(tasks, "SAFE_LOAD", False)


@pytest.mark.parametrize("spec", [TINY, TINY_RCNN, TINY_UNET, TINY_CLASSES], ids=lambda spec: spec["model"])
@pytest.mark.parametrize("write", [write_checkpoint, write_pickle])
@pytest.mark.usefixtures("imported_before")
def test_weights_are_read_without_running_them(tmp_path: Path, spec: dict[str, Any], write: Any) -> None:
    path = write(tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"weights\.pt") as error:
        build_model(ModelConfig(**spec, weights=path), NAMES, role="teacher", imgsz=64)
    assert "\n" not in str(error.value)
    assert not mark_of(path).exists()


@pytest.mark.usefixtures("imported_before")
def test_a_checkpoint_of_ultralytics_is_built_of_known_classes_alone(checkpoint: Path, tmp_path: Path) -> None:
    load_yolo(checkpoint)
    content = torch.load(checkpoint, weights_only=False)
    path = write_checkpoint(tmp_path / "last.pt", **content)
    for read in (load_yolo, lambda path: epochs_left(path, 2, 0)):
        with pytest.raises(WeightsError, match=r"last\.pt"):
            read(path)
    assert read_state_dict(path) is None
    with pytest.raises(WeightsError, match=r"distiller-1\.pt"):
        read_state(write_checkpoint(tmp_path / "distiller-1.pt", distiller={}, weights=[]))
    content["model"].model[0] = nn.Sequential(Foreign())
    torch.save(content, tmp_path / "foreign.pt")
    with pytest.raises(WeightsError, match=r"foreign\.pt"):
        load_yolo(tmp_path / "foreign.pt")
    assert not list(tmp_path.glob("*-was-run"))


class Foreign(nn.Module):
    """A layer that neither torch nor ultralytics knows."""


def test_training_a_yolo_reads_no_pickled_labels_and_a_resumed_run_no_foreign_best(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = shutil.copytree(data.parent, tmp_path / "data") / "data.yaml"
    caches = [write_label_cache(own.parent / "labels" / f"{split}.cache") for split in ("train", "val")]
    config = configure(own, distill=None, output=str(tmp_path / "runs"))

    def cut(_: object, done: int, values: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            run_config(config)
    weights = tmp_path / "runs" / "run" / "ultralytics" / "weights"
    for cache in caches:
        write_label_cache(cache)
    done = {**load_yolo(weights / "last.pt").ckpt, "epoch": 1}  # as if all epochs had been trained
    torch.save(done, weights / "last.pt")
    for name in ("best.pt", "last.pt"):
        write_checkpoint(weights / name, **done)
        with pytest.raises(DetkdError, match=name):
            run_config(config, resume=True)
    assert not list(tmp_path.rglob("*-was-run"))


def test_a_resumed_yolo_obeys_its_configuration_and_not_its_checkpoint(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(data, distill=None, output=str(tmp_path / "runs"))

    def cut(_: object, done: int, values: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", cut)
        with pytest.raises(KeyboardInterrupt):
            run_config(config)
    last = tmp_path / "runs" / "run" / "ultralytics" / "weights" / "last.pt"
    content = load_yolo(last).ckpt
    elsewhere = {"project": str(tmp_path / "elsewhere"), "save_dir": str(tmp_path / "elsewhere"), "name": "x", "lr0": 9.0}
    torch.save({**content, "train_args": {**content["train_args"], **elsewhere}}, last)
    assert (run_config(config, resume=True) / "results.json").is_file()
    assert not (tmp_path / "elsewhere").exists()


def test_lightnings_checkpoint_is_read_without_running_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure_classes(write_pictures(tmp_path / "data", {"train": 4, "test": 2}), output=str(tmp_path))

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(TrainingProgress, "epoch", cut)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run_config(config)
    last = tmp_path / "run" / "lightning" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    faulty: dict[str, Any] = {
        "bomb": {**content, "bomb": None},
        "part": {key: value for key, value in content.items() if key != "loops"},
        "state": {**content, "state_dict": {}},
        "loops": {**content, "loops": 5},
        "list": [],
    }
    for name, tree in faulty.items():
        torch.save(tree, last)
        if name == "bomb":
            write_checkpoint(last, **content)
        with pytest.raises(WeightsError, match=r"last\.ckpt") as error:
            run_config(config, resume=True)
            pytest.fail(name)
        assert "\n" not in str(error.value)
    last.write_bytes(last.read_bytes()[:100])
    with pytest.raises(WeightsError, match=r"last\.ckpt"):
        run_config(config, resume=True)
    assert not mark_of(last).exists()
    torch.save(content, last)
    assert (run_config(config, resume=True) / "results.json").is_file()


@pytest.mark.parametrize(
    "change",
    [{"activation": "MARK.mkdir()"}, {"backbone": [[-1, 1, "os.system", ["true"]]]}, {"backbone": "x"}, {"head": []}],
)
@pytest.mark.usefixtures("imported_before")
def test_a_models_yaml_is_built_without_running_it(tmp_path: Path, change: dict[str, Any]) -> None:
    from ultralytics.nn.tasks import yaml_model_load

    mark = tmp_path / "mark"
    text = yaml.safe_dump({**yaml_model_load("yolov5n.yaml"), **change})
    path = tmp_path / "yolov5n.yaml"
    path.write_text(text.replace("MARK", f'__import__("pathlib").Path("{mark}")'))
    with pytest.raises(ConfigError, match=r"student\.model") as error:
        build_model(ModelConfig(model=str(path)), NAMES, role="student", imgsz=64)
    assert "\n" not in str(error.value)
    assert not mark.exists()


@pytest.mark.parametrize("name", ["https://example.invalid/yolov5n.yaml", "ul://user/yolov5n.yaml", "gs://x/yolov5n.yaml"])
def test_no_model_is_downloaded(name: str) -> None:
    with pytest.raises(ConfigError, match=r"student\.model: expected the name of a model"):
        build_model(ModelConfig(model=name), NAMES, role="student", imgsz=64)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        (BOMB, "more than 200,000 values"),
        ("a: &a [*a]", "more than 200,000 values"),
        ("[" * 3000, "nested too deeply"),
        ("names: [a]\nnames: [b]", "'names' is there twice"),
    ],
    ids=["tag", "aliases", "itself", "depth", "twice"],
)
def test_yaml_of_anybody_is_plain_values_and_few(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(text)
    start = time.monotonic()
    for read, kind in ((load_config, ConfigError), (DetectionDataset.load, DataError)):
        with pytest.raises(kind, match=reason) as error:
            read(path)
        assert "data.yaml" in str(error.value)
        assert "\n" not in str(error.value)
    assert time.monotonic() - start < 20


def test_merges_of_merges_do_not_grow_without_bound(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text(MERGES)
    start = time.monotonic()
    with pytest.raises(DataError, match="more than 200,000 values|expected `names`"):  # newer PyYAMLs drop equal keys
        DetectionDataset.load(tmp_path / "data.yaml")
    assert time.monotonic() - start < 20


def test_pictures_are_decoded_by_what_reads_pictures_alone(tmp_path: Path) -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(mark) (w) file\n%%EOF\n"
    (tmp_path / "a.png").write_bytes(script)
    with pytest.raises(DataError, match=r"a\.png: expected a readable image"):
        read_picture(tmp_path / "a.png")


def test_a_zip_writes_nothing_and_leaves_its_folder_by_no_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "png")
    for name in ("../up.png", "/etc/a.png", "a/../../b.png", "a\\..\\b.png", "deep/er/c.png", "top.png"):
        with zipfile.ZipFile(tmp_path / "train.zip", "w") as file:
            file.writestr("cat/0.png", buffer.getvalue())
            file.writestr(name, buffer.getvalue())
        with pytest.raises(DataError, match="expected pictures as CLASS/FILE"):
            PictureDataset.load(tmp_path, 8)
    with zipfile.ZipFile(tmp_path / "train.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("cat/0.png", buffer.getvalue())
        file.writestr("cat/1.png", buffer.getvalue())
        file.writestr("cat/2.png", b"\0" * (2**26 + 1))
    shutil.copy(tmp_path / "train.zip", tmp_path / "test.zip")
    with pytest.raises(DataError, match=r"bytes at most, but cat/2\.png has more"):
        PictureDataset.load(tmp_path, 8)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.zip", "train.zip"]


def test_links_do_not_lead_out_of_a_data_set(data: Path, tmp_path: Path) -> None:
    own = shutil.copytree(data.parent, tmp_path / "data")
    secret = tmp_path / "secret.png"
    shutil.copy(own / "images" / "train" / "0.png", secret)
    for link, target in (("images/train/0.png", secret), ("labels/train/0.txt", tmp_path / "secret.txt")):
        (tmp_path / "secret.txt").write_text("hush\n")
        kept = (own / link).read_bytes()
        (own / link).unlink()
        (own / link).symlink_to(target)
        with pytest.raises(DataError, match=f"{Path(link).name}: expected a file below .*, but it is a link to") as error:
            check_dataset(DetectionDataset.load(own / "data.yaml"), ("train",))
        assert "hush" not in str(error.value)
        (own / link).unlink()
        (own / link).write_bytes(kept)
    shutil.move(own / "images", tmp_path / "images")
    (own / "images").symlink_to(tmp_path / "images")
    with pytest.raises(DataError, match="expected `train` to lie below"):
        DetectionDataset.load(own / "data.yaml")
    tree = yaml.safe_load((own / "data.yaml").read_text())
    (own / "data.yaml").write_text(yaml.safe_dump({**tree, "path": str(own)}))  # whoever gives it absolutely means it
    (own / "labels" / "train" / "0.txt").unlink()
    os.symlink(own / "labels" / "train" / "1.txt", own / "labels" / "train" / "0.txt")
    DetectionDataset.load(own / "data.yaml")


def test_no_source_opens_a_door(repository: Path) -> None:
    """Every load of torch is of weights only; nothing is unpickled, evaluated or handed to a shell."""
    found = []
    for path in sorted((repository / "detkd").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path}: imports {name}" for name in modules if name in {"subprocess", "shelve", "marshal", "dill"}]
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if name == "torch.load" and keywords.get("weights_only") != "True":
                found.append(f"{path}:{node.lineno}: torch.load")
            if name in {"pickle.load", "pickle.loads", "pickle.Unpickler", "yaml.unsafe_load", "yaml.full_load"}:
                found.append(f"{path}:{node.lineno}: {name}")
            if name == "yaml.load" and [ast.unparse(argument) for argument in node.args[1:]] != ["_Loader"]:
                found.append(f"{path}:{node.lineno}: yaml.load")
            if isinstance(node.func, ast.Name) and name in DOORS:
                found.append(f"{path}:{node.lineno}: {name}")
            if name in {"os.system", "os.popen"} or "shell" in keywords or "allow_pickle" in keywords:
                found.append(f"{path}:{node.lineno}: {name}")
    assert not found

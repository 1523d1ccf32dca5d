"""Views of ultralytics' training data: the same address, the same picture."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from detkd.adapters.ultralytics import import_ultralytics
from detkd.engines.views.ultralytics import CLOSED, FULL, Views, ViewSampler, load_views, replaying
from detkd.errors import ConfigError
from detkd.teachers.store import View

MIXED = {"mosaic": 0.8, "copy_paste": 0.5, "mixup": 0.4, "cutmix": 0.4, "degrees": 10.0, "flipud": 0.5}
IMAGES = 6


@pytest.fixture(scope="module")
def polygons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of noise, each with two labelled triangles."""
    root = tmp_path_factory.mktemp("polygons")
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    for index in range(IMAGES):
        pixels = generator.integers(0, 256, (48 + index, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / "train" / f"{index}.png")
        label = "0 0.1 0.1 0.4 0.1 0.2 0.4\n1 0.6 0.6 0.9 0.6 0.7 0.9\n"
        (root / "labels" / "train" / f"{index}.txt").write_text(label)
    content = {"path": str(root), "train": "images/train", "val": "images/train", "names": ["a", "b"]}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    return root / "data.yaml"


def views(data: Path, **changes: Any) -> Views:
    import_ultralytics()
    small = {"imgsz": 64, "batch": 2, "epochs": 6, "close_mosaic": 2, "task": "segment", "workers": 0}
    return load_views({**small, **MIXED, **changes, "data": str(data)}, 32, 3)


def pictures(dataset: Views, addresses: list[tuple[int, int]]) -> dict[tuple[int, int], torch.Tensor]:
    return {address: dataset[address]["img"] for address in addresses}


EVERY = [(image, view) for view in range(3) for image in range(IMAGES)]


def test_a_view_is_the_same_whatever_came_before(polygons: Path) -> None:
    forward = pictures(views(polygons), EVERY)
    dataset = views(polygons, cache="ram")
    backward = pictures(dataset, EVERY[::-1])
    again = pictures(dataset, EVERY)
    for address in EVERY:
        assert torch.equal(forward[address], backward[address]), address
        assert torch.equal(forward[address], again[address]), address
    assert len({picture.numpy().tobytes() for picture in forward.values()}) == len(EVERY)
    assert not torch.equal(views(polygons).dataset[0]["img"], views(polygons).dataset[0]["img"])  # without views


def test_generators_are_given_back(polygons: Path) -> None:
    dataset = views(polygons)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    expected = random.random(), np.random.rand(), torch.rand(())
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)
    dataset[0, 0]
    next(dataset.load([View(FULL, 0, 0)], 1))
    assert (random.random(), np.random.rand(), torch.rand(())) == expected
    assert torch.initial_seed() == 5


class Recorder:
    """Stands in for the parts of a trainer that `replaying` overrides."""

    def __init__(self, data: Path, workers: int, start: int = 0, **changes: Any) -> None:
        self.dataset = views(data, **changes)
        self.args = self.dataset.args
        self.workers, self.start = workers, start
        self.seen: list[dict[Any, torch.Tensor]] = []

    def _setup_train(self) -> None:
        self.train_loader = self.get_dataloader("train")
        self.resume_training(None)

    def build_dataset(self, *_: Any) -> Any:
        return self.dataset.dataset

    def get_dataloader(self, path: str, batch_size: int = 2, rank: int = 0, mode: str = "train") -> Any:
        from ultralytics.data import build_dataloader

        return build_dataloader(self.build_dataset(path, mode, batch_size), batch_size, self.workers, device="cpu")

    def resume_training(self, ckpt: Any) -> None:
        self.start_epoch = self.start

    def _close_dataloader_mosaic(self) -> None:
        self.train_loader.dataset.close_mosaic(hyp=copy.copy(self.args))

    def train(self) -> None:
        """As ultralytics' trainer goes through its epochs."""
        self._setup_train()
        self.epochs, closed = self.args.epochs, False
        for epoch in range(self.start_epoch, self.epochs):
            self.epoch = epoch
            if not closed and epoch >= self.epochs - self.args.close_mosaic:
                closed = True
                self._close_dataloader_mosaic()
                self.train_loader.reset()
            batches = list(self.train_loader)
            self.seen.append(dict(pair for b in batches for pair in zip(b["views"], b["img"], strict=True)))
        self.train_loader.close()


def epochs(data: Path, workers: int, start: int = 0, **changes: Any) -> list[dict[Any, torch.Tensor]]:
    trainer = replaying(Recorder, 3)(data, workers, start, **changes)
    trainer.train()
    return trainer.seen


def test_epochs_go_through_the_views_also_with_workers_and_after_a_resumption(polygons: Path) -> None:
    alone, many = epochs(polygons, 0), epochs(polygons, 2)
    for epoch, (first, second) in enumerate(zip(alone, many, strict=True)):
        stage, view = (FULL, epoch % 3) if epoch < 4 else (CLOSED, epoch - 4)
        assert set(first) == set(second) == {(stage, view, image) for image in range(IMAGES)}
        for key, picture in first.items():
            assert torch.equal(picture, second[key]), key
    assert all(torch.equal(picture, alone[3][key]) for key, picture in alone[0].items())  # view 0 comes back
    for start in (2, 5):
        resumed = epochs(polygons, 2, start)
        assert [set(seen) for seen in resumed] == [set(seen) for seen in alone[start:]]
    plain = epochs(polygons, 0, **dict.fromkeys(MIXED, 0.0))
    assert {key.stage for seen in plain for key in seen} == {FULL}  # closing changes nothing here


def test_views_of_a_stage_are_no_more_than_its_epochs(polygons: Path) -> None:
    dataset = views(polygons)
    for close, count, expected in (
        (2, 3, {FULL: 3, CLOSED: 2}),
        (2, 9, {FULL: 4, CLOSED: 2}),
        (6, 9, {CLOSED: 6}),
        (0, 9, {FULL: 6}),
    ):
        dataset.args.close_mosaic = close
        assert Views(dataset.dataset, dataset.args, count).counts == expected
    assert list(ViewSampler([[4, 5]], {FULL: 2})) == [[(4, 0), (5, 0)]]
    assert [set(seen) for seen in epochs(polygons, 0, close_mosaic=6)][4] == {(CLOSED, 1, i) for i in range(IMAGES)}


def test_pictures_are_loaded_for_a_cache_as_a_student_sees_them(polygons: Path) -> None:
    seen = epochs(polygons, 0)
    for epoch, stage in ((1, FULL), (5, CLOSED)):
        wanted = [View(stage, 1, image) for image in range(IMAGES)]
        loaded = torch.cat(list(views(polygons).load(wanted, batch=4)))
        assert torch.equal(loaded, torch.stack([seen[epoch][view] for view in wanted]).float() / 255)


def test_each_part_of_the_fingerprint_answers_for_its_own(polygons: Path) -> None:
    before = views(polygons).fingerprint()
    assert before == views(polygons, cache="ram", close_mosaic=4, batch=3).fingerprint()
    image, label = (polygons.parent / kind / "train" / "0" for kind in ("images", "labels"))
    for file, key, content in (
        (image.with_suffix(".png"), "pictures", (polygons.parent / "images/train/1.png").read_bytes()),
        (label.with_suffix(".txt"), "labels", b"0 0.1 0.1 0.4 0.1 0.2 0.3\n"),
    ):
        kept = file.read_bytes()
        file.write_bytes(content)
        changed = views(polygons).fingerprint()
        file.write_bytes(kept)
        assert [k for k, value in before["data"].items() if changed["data"][k] != value] == [key]
    after = views(polygons, hsv_h=0.5, imgsz=96, fraction=0.5).fingerprint()
    assert after["transform"] == {**before["transform"], "hsv_h": 0.5}
    assert after["input"] == {"imgsz": 96}
    assert after["data"]["images"] == IMAGES // 2


def test_images_are_read_once_however_many_teachers_ask(polygons: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, read, opened = views(polygons), Path.read_bytes, []
    monkeypatch.setattr(Path, "read_bytes", lambda self: opened.append(self.name) or read(self))
    assert dataset.fingerprint() == dataset.fingerprint()
    assert sorted(opened) == [f"{index}.png" for index in range(IMAGES)]


def test_what_cannot_be_replayed_is_refused(polygons: Path) -> None:
    with pytest.raises(ConfigError) as error:
        views(polygons, multi_scale=0.5, rect=True, time=1.0)
    lines = str(error.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["trainer.multi_scale", "trainer.rect", "trainer.time"]

"""Training samples that are set apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from detkd.data.class_folders import PictureDataset
from detkd.data.sampling import AddressSampler
from detkd.engines.lightning.classification import ClassificationTraining
from detkd.engines.lightning.held_out import HeldOut
from detkd.engines.lightning.loading import make_loader
from detkd.errors import ConfigError
from detkd.models.classifier import ClassifierArchitecture
from detkd.models.image_classifiers import cnn
from tests.engines.classes import configure_classes, write_pictures

if TYPE_CHECKING:
    from pathlib import Path

    from detkd.engines.lightning.task import AddressedPictures

TASK = ClassificationTraining()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 11, "test": 1})  # 30 remain beside val


@pytest.fixture(scope="module")
def pictures(root: Path) -> AddressedPictures:
    return TASK.pictures(configure_classes(root), PictureDataset.load(root, 32), None)


def test_the_same_samples_are_set_apart_in_every_run_of_a_seed(pictures: AddressedPictures) -> None:
    first, again, other = (HeldOut(TASK, pictures, 0.2, batch=4, seed=seed) for seed in (0, 0, 1))
    assert first.samples == again.samples
    assert len(first.samples) == len(other.samples) == 6
    assert first.samples != other.samples


def test_an_epoch_is_as_long_and_shows_none_of_them(pictures: AddressedPictures) -> None:
    held_out = HeldOut(TASK, pictures, 0.2, batch=4, seed=0)
    factors = held_out.without(np.ones(30))
    assert factors.sum() == pytest.approx(30)
    seen = set()
    for epoch in range(20):
        sampler = AddressSampler(factors, 6, seed=0)
        sampler.set_epoch(epoch)
        shown = [image for image, _ in sampler]
        assert len(shown) == 30
        seen |= set(shown)
    assert seen == set(range(30)) - set(held_out.samples)


def test_each_step_and_process_draws_its_own_batch_and_draws_it_again(pictures: AddressedPictures) -> None:
    first, second = (HeldOut(TASK, pictures, 0.5, batch=4, seed=0, rank=rank) for rank in (0, 1))
    batch, again = first.draw(5), first.draw(5)
    assert torch.equal(batch.images, again.images)
    assert batch.addresses == again.addresses
    assert len({sample for sample, _ in batch.addresses}) == 4
    assert {sample for sample, _ in batch.addresses} <= set(first.samples) == set(second.samples)
    assert batch.addresses != first.draw(6).addresses
    assert batch.addresses != second.draw(5).addresses
    cached = HeldOut(TASK, pictures, 0.5, batch=40, seed=0, views=2).draw(5)
    assert {view for _, view in cached.addresses} == {1}
    assert len(cached.addresses) == 15


def test_only_what_is_labelled_is_set_apart(pictures: AddressedPictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TASK, "labelled", lambda found: np.arange(len(found)) < 4, raising=False)
    assert set(HeldOut(TASK, pictures, 0.5, batch=4, seed=0).samples) < {0, 1, 2, 3}
    monkeypatch.setattr(TASK, "labelled", lambda found: np.arange(len(found)) < 1, raising=False)
    with pytest.raises(ConfigError, match=r"distill\.balance: expected two labelled training samples"):
        HeldOut(TASK, pictures, 0.5, batch=4, seed=0)


def test_only_a_balance_that_looks_ahead_sets_samples_apart(root: Path) -> None:
    dataset, student = PictureDataset.load(root, 32), cnn(ClassifierArchitecture("cnn", ("a", "b", "c"), 32, width=0.25))
    for balance, count in (("meta", 2), ("gradient_ratio", 0)):
        distill = {"teacher": {"weights": "t.safetensors"}, "balance": balance}
        config = configure_classes(root, distill=distill)
        loader, held_out = make_loader(TASK, config, dataset, student, 0, 1)
        assert len(loader) == 4
        assert (0 if held_out is None else len(held_out.samples)) == count

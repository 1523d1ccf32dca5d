"""Batches for classifiers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from detkd.data.class_batches import MovedPictures, TokenizedSentences, batches, collate
from detkd.data.class_folders import ClassifiedPictures
from detkd.data.text import Sentences
from detkd.errors import ConfigError

PIXELS = np.arange(1, 1 + 2 * 3 * 16, dtype=np.uint8).reshape(2, 3, 4, 4)
PICTURES = ClassifiedPictures(PIXELS, np.array([1, 0]), ("a", "b"))
SENTENCES = Sentences((np.array([2, 7, 3]), np.array([2, 7, 8, 9, 3])), np.array([0, 1]), ("x", "y"))


def test_without_moves_a_picture_is_what_it_was() -> None:
    found = MovedPictures(PICTURES, shift=0, flip=False)[1, 5]
    assert found.images.numpy().tolist() == PIXELS[1:].tolist()
    assert found.targets.tolist() == [0]
    assert found.addresses == [(1, 5)]


def test_half_of_the_views_are_mirrored() -> None:
    pictures = MovedPictures(PICTURES, shift=0)
    views = pictures.__getitems__([(0, view) for view in range(200)])[0].images.numpy()
    mirrored = (views == PIXELS[:1, ..., ::-1]).all((1, 2, 3))
    assert 70 < mirrored.sum() < 130
    assert (views[~mirrored] == PIXELS[0]).all()


def test_all_moves_up_to_the_shift_occur_and_black_comes_into_view() -> None:
    pictures = MovedPictures(PICTURES, shift=1, flip=False)
    views = pictures.__getitems__([(0, view) for view in range(300)])[0].images.numpy()
    expected = set()
    padded = np.pad(PIXELS[0], ((0, 0), (1, 1), (1, 1)))
    for row in range(3):
        for column in range(3):
            expected.add(padded[:, row : row + 4, column : column + 4].tobytes())
    assert {view.tobytes() for view in views} == expected


def test_a_picture_depends_on_address_and_salt_alone() -> None:
    pictures = MovedPictures(PICTURES, shift=2)
    together = pictures.__getitems__([(0, 1), (1, 9), (0, 3)])[0].images
    alone = collate([pictures[address] for address in ((0, 1), (1, 9), (0, 3))]).images
    assert torch.equal(together, alone)
    many = [(0, view) for view in range(20)]
    other = MovedPictures(PICTURES, shift=2, salt="1").__getitems__(many)[0].images
    assert not torch.equal(other, pictures.__getitems__(many)[0].images)


def test_transforms_of_albumentations_come_first() -> None:
    pictures = MovedPictures(PICTURES, shift=0, flip=False, steps=[{"InvertImg": {"p": 1.0}}])
    assert pictures[0, 0].images[0].numpy().tolist() == (255 - PIXELS[0]).tolist()
    assert PIXELS[0, 0, 0, 0] == 1  # the data set is left as it was


@pytest.mark.parametrize("step", [{"Resize": {"height": 8, "width": 8}}, {"RandomCrop": {"height": 64, "width": 64}}])
def test_transforms_that_change_the_size_are_refused(step: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="augment: expected transforms"):
        MovedPictures(PICTURES, steps=[step])


def test_sentences_are_filled_up_to_the_longest_of_their_batch() -> None:
    found = TokenizedSentences(SENTENCES).__getitems__([(0, 0), (1, 0)])[0]
    assert found.images.tolist() == [[[[2, 7, 3, 0, 0]]], [[[2, 7, 8, 9, 3]]]]
    assert TokenizedSentences(SENTENCES)[0, 0].images.shape == (1, 1, 1, 3)


@pytest.mark.parametrize("samples", [PICTURES, SENTENCES])
def test_batches_go_through_all_samples_or_those_chosen(samples: ClassifiedPictures | Sentences) -> None:
    assert [len(batch) for batch in batches(samples, 1)] == [1, 1]
    assert [len(batch) for batch in batches(samples, 8, [1])] == [1]


def test_pictures_come_between_0_and_1() -> None:
    torch.testing.assert_close(next(batches(PICTURES, 2)), torch.from_numpy(PIXELS).float() / 255)

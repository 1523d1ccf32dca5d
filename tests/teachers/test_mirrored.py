"""A teacher that sees another view of the student's pictures."""

from __future__ import annotations

import pytest
import torch

from detkd.adapters.classifier import HookedClassifierAdapter
from detkd.errors import AdapterError
from detkd.models.classifier import ClassifierArchitecture
from detkd.models.image_classifiers import cnn
from detkd.models.text_classifiers import LSTMClassifier
from detkd.teachers.live import LiveTeacher


def test_a_mirrored_teacher_says_of_pictures_what_it_says_of_their_mirror_images() -> None:
    adapter = HookedClassifierAdapter(cnn(ClassifierArchitecture("cnn", ("a", "b"), 32, width=0.25)))
    images = torch.rand(2, 3, 32, 32)
    plain, mirrored = LiveTeacher(adapter), LiveTeacher(adapter, mirrored=True)
    plain.attach()
    expected, found = plain.run(images.flip(-1)), mirrored.run(images)
    torch.testing.assert_close(found.logits, expected.logits)
    torch.testing.assert_close(found.features[0], expected.features[0].flip(-1))


def test_sentences_have_no_mirror_image() -> None:
    text = LSTMClassifier(ClassifierArchitecture("lstm", ("a", "b"), 8, width=0.25, vocabulary=30), "{}")
    with pytest.raises(AdapterError, match="mirrored"):
        LiveTeacher(HookedClassifierAdapter(text), mirrored=True)

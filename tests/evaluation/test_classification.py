"""Hand-worked values of accuracy and calibration."""

from __future__ import annotations

import math

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.evaluation.classification import agreement, classification_metrics, predict_logits, reliability

# Probabilities of the predicted class: .9, .9, .6, .6; the first three are right.
LOGITS = torch.tensor([[math.log(9), 0.0], [0.0, math.log(9)], [math.log(1.5), 0.0], [0.0, math.log(1.5)]])
LABELS = torch.tensor([0, 1, 0, 0])


def test_the_calibration_error_weighs_each_bin_by_its_samples() -> None:
    curve = reliability(LOGITS, LABELS, bins=10)
    assert curve.counts.sum() == 4
    assert curve.error == pytest.approx(0.5 * abs(1.0 - 0.9) + 0.5 * abs(0.5 - 0.6))


def test_a_confidence_on_an_edge_belongs_to_the_bin_below_it() -> None:
    curve = reliability(torch.tensor([[0.0, 0.0]]), torch.tensor([0]), bins=2)
    assert curve.counts.tolist() == [1, 0]
    sure = reliability(torch.tensor([[500.0, 0.0]]), torch.tensor([0]), bins=2)
    assert sure.counts.tolist() == [0, 1]
    assert sure.error == 0


def test_metrics_of_all_samples() -> None:
    metrics = classification_metrics(LOGITS, LABELS)
    assert metrics["accuracy"] == 0.75
    assert metrics["NLL"] == pytest.approx(-(2 * math.log(0.9) + math.log(0.6) + math.log(0.4)) / 4)


def test_agreement_is_the_share_of_equal_predictions() -> None:
    other = LOGITS.clone()
    other[0] = other[0].flip(0)
    assert agreement(LOGITS, other) == 0.75
    with pytest.raises(ArgumentError, match="second"):
        agreement(LOGITS, other[:, :1])


def test_labels_of_other_samples_are_refused() -> None:
    with pytest.raises(ArgumentError, match="labels"):
        classification_metrics(LOGITS, LABELS[:2])


def test_prediction_leaves_the_modes_as_they_were() -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(2, 2)).train()
    model[1].eval()
    found = predict_logits(model, [LOGITS[:3], LOGITS[3:]])
    torch.testing.assert_close(found, model[1](LOGITS).detach())
    assert model[0].training
    assert not model[1].training

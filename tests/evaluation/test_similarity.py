"""How alike layers are."""

from __future__ import annotations

import pytest
import torch

from detkd.errors import ArgumentError
from detkd.evaluation.similarity import cka_table, linear_cka


def test_it_is_the_published_formula() -> None:
    first, second = torch.randn(9, 4).double(), torch.randn(9, 6).double()
    x, y = (rows - rows.mean(0) for rows in (first, second))
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(first, second) == pytest.approx(float(expected))


def test_rotation_scale_and_position_do_not_matter() -> None:
    rows = torch.randn(20, 5).double()
    rotation = torch.linalg.qr(torch.randn(5, 5).double()).Q
    assert linear_cka(rows, 3 * rows @ rotation + 7) == pytest.approx(1)


def test_unrelated_samples_are_not_alike_and_constant_ones_never() -> None:
    assert linear_cka(torch.randn(2000, 3), torch.randn(2000, 3)) < 0.01
    assert linear_cka(torch.ones(5, 3), torch.randn(5, 3)) == 0


def test_the_table_has_each_pair_of_layers() -> None:
    layers = [torch.randn(8, 2, 3, 3), torch.randn(8, 5)]
    table = cka_table(layers, layers[::-1])
    assert table[0, 1] == pytest.approx(1)
    assert float(table[0, 0]) == pytest.approx(linear_cka(layers[0], layers[1]))


def test_other_samples_are_refused() -> None:
    with pytest.raises(ArgumentError, match="second"):
        linear_cka(torch.randn(4, 2), torch.randn(5, 2))

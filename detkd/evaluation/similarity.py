"""How alike two layers see the same samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import ArgumentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    r"""Centred kernel alignment of two sets of activations, with linear kernels.

    .. math:: \frac{\|Y^\top X\|_F^2}{\|X^\top X\|_F \, \|Y^\top Y\|_F}

    with the columns of X and Y centred: 1 for activations that are the same up to rotation and a common scale, about 0 for
    unrelated ones, if there are many more samples than dimensions.

    Args:
        first: Activations X of N samples, [N, ...].
        second: Activations Y of the same samples, [N, ...].

    Returns:
        From 0 to 1; 0 where one of them does not vary.

    Raises:
        ArgumentError: If the samples differ in number.

    Source:
        Kornblith, Norouzi, Lee and Hinton: Similarity of Neural Network Representations Revisited, ICML 2019,
        arXiv:1905.00414.
    """
    if len(first) != len(second):
        raise ArgumentError(f"Expected argument `second` to hold {len(first)} samples as `first`, but got {len(second)}.")
    grams = [_centred_gram(activations) for activations in (first, second)]
    norms = [gram.norm() for gram in grams]
    product = norms[0] * norms[1]
    return float((grams[0] * grams[1]).sum() / product) if product > 0 else 0.0


def cka_table(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    """:func:`linear_cka` of each layer of one model with each of another's, [L, M]."""
    grams = [[_centred_gram(layer) for layer in layers] for layers in (first, second)]
    units = [[gram / gram.norm().clamp(min=1e-30) for gram in own] for own in grams]
    return torch.stack([torch.stack([(one * other).sum() for other in units[1]]) for one in units[0]])


def _centred_gram(activations: Tensor) -> Tensor:
    """Inner products of all pairs of samples behind centring, [N, N]: they say what the features' products do."""
    rows = activations.detach().flatten(1).double()
    rows = rows - rows.mean(0)
    return rows @ rows.T

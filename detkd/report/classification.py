"""What a classifier learned, as pictures: its reliability, how alike its layers are to a teacher's, where both look."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from detkd.files import replacing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from detkd.evaluation.classification import Reliability

BLUE, GREY = "#0072B2", "#999999"


def reliability_plot(curves: Mapping[str, Reliability], path: Path) -> None:
    """Draw how often each model is right where it is so sure, against the diagonal of a calibrated one, as PNG.

    Args:
        curves: Of each model, by its role.
        path: The PNG.
    """
    figure = Figure(figsize=(3.4 * max(len(curves), 1), 3.6), layout="constrained")
    for index, (role, curve) in enumerate(curves.items()):
        axes = figure.add_subplot(1, len(curves), index + 1)
        widths = curve.edges[1:] - curve.edges[:-1]
        axes.bar(curve.edges[:-1], curve.accuracy, widths, align="edge", color=BLUE, edgecolor="white", linewidth=0.5)
        axes.plot([0, 1], [0, 1], color=GREY, linestyle="--")
        axes.set_title(f"{role}: ECE {curve.error:.3f}", fontsize=10)
        axes.set_xlabel("confidence", fontsize=8)
        axes.set_ylabel("accuracy", fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
    _save(figure, path)


def similarity_plot(table: Tensor, path: Path) -> None:
    """Draw the similarity (CKA) of each layer of the student with each of the teacher's, as PNG.

    Args:
        table: From 0 to 1, [layers of the student, layers of the teacher].
        path: The PNG.
    """
    rows, columns = table.shape
    figure = Figure(figsize=(1.6 + 0.7 * columns, 1.4 + 0.7 * rows), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(table.numpy(), vmin=0, vmax=1, cmap="viridis")
    for row in range(rows):
        for column in range(columns):
            value = float(table[row, column])
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="black" if value > 0.6 else "white")
    axes.set_xticks(range(columns), [str(column + 1) for column in range(columns)])
    axes.set_yticks(range(rows), [str(row + 1) for row in range(rows)])
    axes.set_xlabel("layer of the teacher", fontsize=8)
    axes.set_ylabel("layer of the student", fontsize=8)
    axes.set_title("similarity of layers (CKA)", fontsize=10)
    _save(figure, path)


def attention_panels(images: Tensor, maps: Mapping[str, Sequence[Tensor]], path: Path) -> None:
    """Draw some pictures, and below each where the layers of each model are active, as PNG.

    Args:
        images: RGB in [0, 1], [N, 3, H, W].
        maps: Of each model, by its role, the mean square of each level's features, [N, H_l, W_l] each.
        path: The PNG.
    """
    titles = [""] + [f"{role} {level + 1}" for role, levels in maps.items() for level in range(len(levels))]
    rows: list[Any] = [images.permute(0, 2, 3, 1), *(level for levels in maps.values() for level in levels)]
    figure = Figure(figsize=(1.2 * len(images) + 0.6, 1.2 * len(rows)), layout="constrained")
    for row, (title, pictures) in enumerate(zip(titles, rows, strict=True)):
        for column, picture in enumerate(pictures):
            axes = figure.add_subplot(len(rows), len(images), row * len(images) + column + 1)
            axes.imshow(picture.numpy(), cmap="magma")
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(title, fontsize=7)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110)

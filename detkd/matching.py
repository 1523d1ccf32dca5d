"""Where two models meet: levels by their strides, classes by their names, logits over the classes that both know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from detkd.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

# Indices of the common classes in the student's and in the teacher's, in one order; None where all stay as they are.
CommonClasses = tuple[list[int] | None, list[int] | None]


def match_levels(student: Sequence[int], teacher: Sequence[int], scale: float) -> list[tuple[int, int]]:
    """Index in the student's levels and in the teacher's of every pair whose steps cover as many of the student's pixels.

    Args:
        student: Strides of the student's levels.
        teacher: Strides of the teacher's.
        scale: Side of the teacher's input as a multiple of the student's.

    Raises:
        AdapterError: If no level meets.
    """
    pairs = []
    for s, own in enumerate(student):
        alike = [t for t, other in enumerate(teacher) if own * scale == other]
        turn = list(student[:s]).count(own)  # of several levels of one stride, the first meets the first
        if turn < len(alike):
            pairs.append((s, alike[turn]))
    if not pairs:
        raise AdapterError(
            f"Expected teacher and student to share a feature stride, but the teacher has {tuple(teacher)} at an input "
            f"{scale:g} times the student's, and the student {tuple(student)}."
        )
    return pairs


def check_grids(student: Sequence[Tensor], teacher: Sequence[Tensor], levels: Sequence[tuple[int, int]]) -> None:
    """Refuse feature maps that meet by their strides, but not by their heights and widths.

    Raises:
        AdapterError: With both sizes.
    """
    for s, t in levels:
        sizes = student[s].shape[2:], teacher[t].shape[2:]
        if sizes[0] != sizes[1]:
            raise AdapterError(
                f"Expected teacher and student to have the same grid on a level, but got {tuple(sizes[1])} and "
                f"{tuple(sizes[0])}. Choose an input size that is a multiple of all strides of both."
            )


def match_classes(student: Sequence[str], teacher: Sequence[str], given: Mapping[str, str] | None) -> CommonClasses | None:
    """The classes that both know, None if they cannot be mapped.

    Args:
        student: Names of the student's classes.
        teacher: Names of the teacher's.
        given: Teacher's class for a student's class, for those whose names differ. If given, the teacher may lack classes.

    Raises:
        AdapterError: If `given` names a class that is not there.
    """
    given = given or {}
    for role, names, known in (("student", given, student), ("teacher", given.values(), teacher)):
        unknown = [name for name in names if name not in known]
        if unknown:
            raise AdapterError(
                f"Expected the teacher's `classes` to name the {role}'s classes {list(known)}, but got {unknown}."
            )
    wanted = {name: given.get(name, name) for name in student}
    pairs = [(student.index(own), teacher.index(other)) for own, other in wanted.items() if other in teacher]
    if not pairs or (len(pairs) < len(student) and not given):
        return None
    own, other = [s for s, _ in pairs], [t for _, t in pairs]
    return (
        None if own == list(range(len(student))) else own,
        None if other == list(range(len(teacher))) else other,
    )


def check_one_to_one(classes: Sequence[int] | None, names: Sequence[str]) -> None:
    """Refuse several classes of a student for one of the teacher's where they exclude each other: its share would double.

    Args:
        classes: Indices of the common classes in the teacher's; None where all stay as they are.
        names: The teacher's classes.

    Raises:
        AdapterError: Naming those that several meet.
    """
    if classes is not None and len(set(classes)) < len(classes):
        shared = sorted({names[index] for index in classes if list(classes).count(index) > 1})
        raise AdapterError(
            f"Expected the teacher's `classes` to map one class of the student at most to each of its own, because the "
            f"student's classes exclude each other, but {shared} are given for several. Map only one to each."
        )


def no_common_classes(student: Sequence[str], teacher: Sequence[str], term: str, other: str) -> AdapterError:
    """The error of a term that needs common classes where there are none.

    Args:
        student: Names of the student's classes.
        teacher: Names of the teacher's.
        term: The term.
        other: What to do but mapping them.
    """
    return AdapterError(
        f"Expected every class of the student to be one of the teacher's for `{term}`, but the student has {list(student)} "
        f"and the teacher {list(teacher)}. Give the teacher's `classes` (student's name to teacher's name), or {other}."
    )


def pick_classes(logits: Tensor, classes: Sequence[int] | None, *, background: bool) -> Tensor:
    """Some classes of logits [N, C, ...], behind the background where there is one: it takes in all others.

    Of classes that exclude each other, none may be left out: what is another object to one model is background to the
    other, and a softmax over the rest alone would make it one of theirs.
    """
    if classes is None:
        return logits
    if not background:
        return logits[:, list(classes)]
    columns = [1 + index for index in classes]
    others = [column for column in range(logits.shape[1]) if column not in columns]
    return torch.cat((logits[:, others].logsumexp(1, keepdim=True), logits[:, columns]), 1)

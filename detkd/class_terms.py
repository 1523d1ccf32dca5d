"""The distillation terms of a classifier and one teacher."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor, nn

from detkd.adapters.base import ClassifierAdapter
from detkd.errors import AdapterError
from detkd.losses import LOSSES
from detkd.matching import check_grids, check_one_to_one, match_classes, match_levels, no_common_classes, pick_classes
from detkd.places import loss_inputs
from detkd.teachers.ensemble import class_label_loss, scale_class_gradients
from detkd.teachers.packing import Kept
from detkd.terms import level_aligners, level_losses, level_parts
from detkd.types import ClassTargets
from detkd.vocabulary import ATTENTION_NAMES, CLASS_NAMES, HIDDEN_NAMES, SOFTMAX_NAMES

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from detkd.teachers.base import Teacher
    from detkd.terms import Term
    from detkd.types import ClassifierOutputs

Place = Literal["levels", "attentions", "classes", "shallow"]
OFFERED: dict[Place, set[str]] = {
    "levels": {"student_feature", "teacher_feature", *HIDDEN_NAMES},
    "attentions": set(ATTENTION_NAMES),
    "classes": set(CLASS_NAMES),
    "shallow": {"student_feature", "student_softmax_logits", "student_embedding", "labels"},
}


class ClassTerms(nn.Module):
    """Aligners and losses between two classifiers of pictures, or two of sentences; see :class:`detkd.terms.Terms`.

    Levels of pictures meet by their strides, layers of sentences evenly: each of the student's the teacher's at the same
    share of its depth (Jiao et al. 2020, arXiv:1909.10351). Where only some of the classes are common, losses on classes
    see the samples of those alone, and their logits.

    Args:
        student: Adapter of the student.
        teacher: The teacher.
        terms: The losses.

    Attributes:
        places: Where each loss works, by its name.

    Raises:
        AdapterError: If teacher and student do not fit each other in what a term needs.
    """

    def __init__(self, student: ClassifierAdapter, teacher: Teacher, terms: Sequence[Term]) -> None:
        super().__init__()
        other = _classifier_of(teacher, student)
        self._names = student.class_names, other.class_names
        self._classes = match_classes(*self._names, teacher.classes)
        self._inputs = {term.name: loss_inputs(term.name) for term in terms}
        self.places = {name: find_class_place(name, student) for name in self._inputs}
        for name, inputs in self._inputs.items():
            if {*SOFTMAX_NAMES, "labels"} & set(inputs):
                self._check_classes(name)
        self._levels = _levels(student, other, teacher.scale) if "levels" in self.places.values() else []
        self._layers = _layers(student, other) if "attentions" in self.places.values() else []
        channels = [other.feature_channels[level] for _, level in self._levels]
        self.losses = nn.ModuleDict(
            {
                term.name: level_losses(term, channels)
                if self.places[term.name] == "levels"
                else _shallow_heads(term, student)
                if self.places[term.name] == "shallow"
                else LOSSES[term.name](**dict(term.arguments or {}))
                for term in terms
            }
        )
        levels = [name for name, place in self.places.items() if place == "levels"]
        self.aligners = nn.ModuleDict({name: level_aligners(name, student, other, self._levels) for name in levels})

    def check_confidence(self) -> None:
        """Refuse to judge the teacher by the labels where they share no classes; see :class:`detkd.terms.Terms`."""
        self._check_classes("ca_mkd")

    def no_labels(self, images: Tensor) -> ClassTargets:
        """The labels of a batch, all of the first class."""
        return ClassTargets(torch.zeros(len(images), dtype=torch.long, device=images.device))

    def prepare(
        self, teacher: ClassifierOutputs, size: tuple[int, int], names: Collection[str], *, judged: bool
    ) -> ClassifierOutputs:
        """The teacher's outputs, which are all that it has to say."""
        del size, names, judged
        return teacher

    def confidence_loss(self, teacher: ClassifierOutputs, targets: ClassTargets, size: tuple[int, int]) -> Tensor:
        """The teacher's cross-entropy on each label, [B]; infinite where the class is not common."""
        del size
        _, columns = self._classes or (None, None)
        return class_label_loss(pick_classes(teacher.logits, columns, background=False), self._common(targets.classes))

    def weighed_at(self, names: Collection[str], student: ClassifierOutputs) -> dict[str, tuple[Tensor, ...]]:
        """All levels, of sentences their layers' own tensors; see :class:`detkd.terms.Terms`."""
        return dict.fromkeys(names, student.hidden or student.features)

    def forward(
        self,
        names: Collection[str],
        student: ClassifierOutputs,
        teacher: ClassifierOutputs,
        targets: ClassTargets,
        size: tuple[int, int],
        factors: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted scalar of each named term; see :class:`detkd.terms.Terms`."""
        del size
        if factors is not None:
            student = scale_class_gradients(student, factors)
        places = {self.places[name] for name in names}
        if "levels" in places:
            check_grids(student.features, teacher.features, self._levels)
        own = [student.features[s] for s, _ in self._levels]
        others = [{"teacher_feature": teacher.features[t], "token_mask": student.tokens} for _, t in self._levels]
        pairs = [(student.attentions[s], teacher.attentions[t]) for s, t in self._layers]
        classes = self._class_tensors(student, teacher, targets) if places & {"classes", "shallow"} else {}
        terms = {}
        for name in names:
            loss, wanted, place = self.losses[name], self._inputs[name], self.places[name]
            if place == "levels":
                terms[name] = torch.stack(level_parts(loss, self.aligners[name], own, others, wanted)).sum()
            elif place == "attentions":
                parts = [dict(zip(ATTENTION_NAMES, (*pair, student.tokens), strict=True)) for pair in pairs]
                terms[name] = torch.stack([loss(*(part[key] for key in wanted)) for part in parts]).sum()
            elif place == "shallow":
                heads = zip(cast("nn.ModuleList", loss), student.features, strict=False)  # the last level has none
                tensors = [(head, {**classes, "student_feature": feature}) for head, feature in heads]
                terms[name] = torch.stack([head(*(offered[key] for key in wanted)) for head, offered in tensors]).sum()
            else:
                terms[name] = loss(*(classes[key] for key in wanted))
        return terms

    def _class_tensors(
        self, student: ClassifierOutputs, teacher: ClassifierOutputs, targets: ClassTargets
    ) -> dict[str, Any]:
        """What is offered under ``CLASS_NAMES``."""
        own, other = self._classes or (None, None)
        labels = self._common(targets.classes)
        logits = pick_classes(student.logits, own, background=False), pick_classes(teacher.logits, other, background=False)
        if own is not None:  # of a class that it does not know, the teacher has nothing to say
            known = labels >= 0
            logits, labels = (logits[0][known], logits[1][known]), labels[known]
        return {
            "student_softmax_logits": logits[0],
            "teacher_softmax_logits": logits[1],
            "labels": labels,
            "student_embedding": student.embedding,
            "teacher_embedding": teacher.embedding,
        }

    def _common(self, labels: Tensor) -> Tensor:
        """Labels as indices of the common classes, -1 for others."""
        own = None if self._classes is None else self._classes[0]
        if own is None:
            return labels
        places = torch.full((len(self._names[0]),), -1, dtype=torch.long, device=labels.device)
        places[own] = torch.arange(len(own), device=labels.device)
        return places[labels]

    def _check_classes(self, term: str) -> None:
        if self._classes is None:
            raise no_common_classes(*self._names, term, "distil what needs no classes (`at`, `rkd`, `sp`)")
        check_one_to_one(self._classes[1], self._names[1])


def find_class_place(name: str, student: ClassifierAdapter) -> Place:
    """Where a loss works on a classifier, by the names that it asks for.

    Raises:
        AdapterError: If the classifier does not offer all of them in one place.
    """
    place = _place_of(name, student)
    if place is None:
        usable = ", ".join(f"`{other}`" for other in LOSSES if _place_of(other, student))
        raise AdapterError(
            f"Expected loss `{name}` to need only what {type(student.model).__name__} offers, but it needs "
            f"{list(loss_inputs(name))}. It learns by {usable}."
        )
    return place


def kept_for(student: ClassifierAdapter, teacher: Teacher, terms: Sequence[Term]) -> Kept:
    """What a cache must keep of a classifier's teacher; see :func:`detkd.kinds.kept_for`."""
    adapter = _classifier_of(teacher, student)
    inputs = {term.name: loss_inputs(term.name) for term in terms}
    places = {find_class_place(name, student) for name in inputs}
    return Kept(
        0,
        levels=tuple(sorted({level for _, level in _levels(student, adapter, teacher.scale)}))
        if "levels" in places
        else (),
        embedding=any("teacher_embedding" in names for names in inputs.values()),
        attentions=tuple(sorted({layer for _, layer in _layers(student, adapter)})) if "attentions" in places else (),
    )


def _place_of(name: str, student: ClassifierAdapter) -> Place | None:
    inputs = set(loss_inputs(name))
    place = next((place for place, offered in OFFERED.items() if inputs <= offered), None)
    # The levels of sentences are filled up with padding, which only a loss that asks for the mask leaves out.
    sentences, masked = student.tokenizer is not None, "token_mask" in inputs
    return None if place in {"levels", "shallow"} and sentences != masked else place


def _classifier_of(teacher: Teacher, student: ClassifierAdapter) -> ClassifierAdapter:
    """The adapter of a classifier's teacher.

    Raises:
        AdapterError: If it is no classifier, or reads something else than the student.
    """
    adapter = teacher.adapter
    if not isinstance(adapter, ClassifierAdapter):
        raise AdapterError(f"Expected a classifier as teacher of a classifier, but {type(adapter.model).__name__} is none.")
    if adapter.tokenizer != student.tokenizer:
        raise AdapterError(
            "Expected teacher and student to read the same tokens, or both pictures, but they do not. Give "
            "classify.tokenizer the teacher's checkpoint, and the student reads its tokens."
        )
    if student.tokenizer is not None and teacher.scale != 1:
        raise AdapterError(f"Expected a `scale` of 1 for a teacher of sentences, but got {teacher.scale:g}.")
    return adapter


def _shallow_heads(term: Term, student: ClassifierAdapter) -> nn.ModuleList:
    """A head on each level but the last, on which the student's own stands."""
    sizes = {"classes": len(student.class_names), "embedding": student.embedding_size}
    kind, arguments = LOSSES[term.name], dict(term.arguments or {})
    return nn.ModuleList(kind(channels=count, **sizes, **arguments) for count in student.feature_channels[:-1])


def _levels(student: ClassifierAdapter, teacher: ClassifierAdapter, scale: float) -> list[tuple[int, int]]:
    if student.tokenizer is None:
        return match_levels(student.strides, teacher.strides, scale)
    last = len(student.strides) - 1, len(teacher.strides) - 1  # the first is the embedding's
    return [(index, round(index * last[1] / max(last[0], 1))) for index in range(len(student.strides))]


def _layers(student: ClassifierAdapter, teacher: ClassifierAdapter) -> list[tuple[int, int]]:
    counts = student.attention_layers, teacher.attention_layers
    if not all(counts):
        silent = teacher if counts[0] else student
        raise AdapterError(
            f"Expected teacher and student to have attention, but {type(silent.model).__name__} has none. Leave "
            "`attention_map` out, and distil hidden states (`hidden_state`)."
        )
    return [(index, max(round((index + 1) * counts[1] / counts[0]) - 1, 0)) for index in range(counts[0])]

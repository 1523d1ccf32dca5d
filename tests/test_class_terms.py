"""Terms between two classifiers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detkd import losses
from detkd.adapters.classifier import HookedClassifierAdapter
from detkd.class_terms import ClassTerms, kept_for
from detkd.distiller import Distiller
from detkd.errors import AdapterError
from detkd.models.classifier import ClassifierArchitecture
from detkd.models.image_classifiers import cnn, resnet18
from detkd.models.text_classifiers import BertClassifier, LSTMClassifier, TransformerClassifier
from detkd.teachers.live import LiveTeacher
from detkd.terms import Term
from detkd.types import ClassifierOutputs, ClassTargets

OWN, OTHER = ("cat", "dog", "owl"), ("dog", "fox", "cat", "owl")
SIZE = (32, 32)


def picture(build: Any, names: tuple[str, ...] = OWN) -> HookedClassifierAdapter:
    return HookedClassifierAdapter(build(ClassifierArchitecture(build.__name__, names, 32, width=0.25)).eval())


def text(kind: Any, depth: float, tokenizer: str = "{}") -> HookedClassifierAdapter:
    architecture = ClassifierArchitecture("x", OWN, 8, width=0.25, depth=depth, vocabulary=30)
    return HookedClassifierAdapter(kind(architecture, tokenizer).eval())


def outputs(adapter: HookedClassifierAdapter, inputs: torch.Tensor) -> ClassifierOutputs:
    adapter.attach()
    adapter.run(inputs)
    found = adapter.take_outputs()
    adapter.detach()
    return found


def build_terms(student: Any, teacher: Any, *names: str, **more: Any) -> ClassTerms:
    return ClassTerms(student, LiveTeacher(teacher, **more), [Term(name) for name in names])


def test_a_teacher_of_more_classes_in_another_order_is_brought_to_the_students() -> None:
    student, teacher = picture(cnn), picture(resnet18, OTHER)
    terms = build_terms(student, teacher, "soft_kl", "dkd")
    images, labels = torch.rand(4, 3, *SIZE), torch.tensor([0, 1, 2, 0])
    own, other = outputs(student, images), outputs(teacher, images)
    found = terms(["soft_kl", "dkd"], own, other, ClassTargets(labels), SIZE)
    ordered = other.logits[:, [2, 0, 3]]
    torch.testing.assert_close(found["soft_kl"], losses.soft_kl(own.logits, ordered))
    torch.testing.assert_close(found["dkd"], losses.dkd(own.logits, ordered, labels))
    expected = torch.nn.functional.cross_entropy(ordered, labels, reduction="none")
    torch.testing.assert_close(terms.confidence_loss(other, ClassTargets(labels), SIZE), expected)


def test_of_classes_that_the_teacher_lacks_it_has_nothing_to_say() -> None:
    student, teacher = picture(cnn), picture(resnet18, ("bird", "cat"))
    terms = build_terms(student, teacher, "soft_kl", "dkd", classes={"owl": "bird"})
    images, labels = torch.rand(3, 3, *SIZE), torch.tensor([0, 1, 2])  # the second is a dog
    own, other = outputs(student, images), outputs(teacher, images)
    found = terms(["soft_kl", "dkd"], own, other, ClassTargets(labels), SIZE)
    rows = own.logits[[0, 2]][:, [0, 2]], other.logits[[0, 2]][:, [1, 0]]
    torch.testing.assert_close(found["soft_kl"], losses.soft_kl(*rows))
    torch.testing.assert_close(found["dkd"], losses.dkd(*rows, torch.tensor([0, 1])))
    assert terms.confidence_loss(other, ClassTargets(labels), SIZE)[1] == torch.inf


def test_classes_that_share_one_of_the_teachers_are_refused() -> None:
    """Its share of the softmax would be taught to each of them."""
    with pytest.raises(AdapterError, match=r"\['cat'\] are given for several"):
        build_terms(picture(cnn), picture(resnet18, ("cat", "dog")), "soft_kl", classes={"owl": "cat"})
    build_terms(picture(cnn), picture(resnet18, ("cat", "dog")), "at", classes={"owl": "cat"})


def test_a_teacher_of_other_classes_teaches_features_alone() -> None:
    student, teacher = picture(cnn), picture(resnet18, ("car", "ship"))
    with pytest.raises(AdapterError, match="soft_kl"):
        build_terms(student, teacher, "soft_kl")
    terms = build_terms(student, teacher, "at", "rkd", "sp")
    images = torch.rand(3, 3, *SIZE)
    own, other = outputs(student, images), outputs(teacher, images)
    found = terms(["at", "rkd", "sp"], own, other, terms.no_labels(images), SIZE)
    torch.testing.assert_close(found["rkd"], losses.rkd(own.embedding, other.embedding))
    pairs = zip(own.features, other.features[1:], strict=True)  # strides 2, 4 and 8 of 1, 2, 4 and 8
    torch.testing.assert_close(found["at"], sum(losses.at(*pair) for pair in pairs))
    with pytest.raises(AdapterError, match="ca_mkd"):
        terms.check_confidence()


def test_layers_of_sentences_meet_at_the_same_share_of_their_depth() -> None:
    student, teacher = text(TransformerClassifier, 1.0), text(BertClassifier, 1.0)  # two layers of four
    terms = build_terms(student, teacher, "hidden_state", "attention_map")
    ids = torch.randint(1, 30, (3, 1, 1, 6))
    ids[0, ..., 4:] = 0
    own, other = outputs(student, ids), outputs(teacher, ids)
    found = terms(["hidden_state", "attention_map"], own, other, terms.no_labels(ids), (1, 6))
    assert own.tokens is not None
    parts = zip(
        terms.aligners["hidden_state"], own.features, (other.features[0], other.features[2], other.features[4]), strict=True
    )
    expected = sum(losses.hidden_state(aligner(s), t, own.tokens) for aligner, s, t in parts)
    torch.testing.assert_close(found["hidden_state"], expected)
    attention = zip(own.attentions, (other.attentions[1], other.attentions[3]), strict=True)
    torch.testing.assert_close(found["attention_map"], sum(losses.attention_map(s, t, own.tokens) for s, t in attention))


def test_a_deeper_student_follows_a_layer_that_there_is() -> None:
    student, teacher = text(TransformerClassifier, 2.0), text(BertClassifier, 0.5)  # four layers of two
    kept = kept_for(student, LiveTeacher(teacher), [Term("attention_map")])
    assert kept.attentions == (0, 1)
    terms = build_terms(student, teacher, "attention_map")
    ids = torch.randint(1, 30, (3, 1, 1, 6))
    own, other = outputs(student, ids), outputs(teacher, ids)
    found = terms(["attention_map"], own, other, terms.no_labels(ids), (1, 6))["attention_map"]
    assert own.tokens is not None
    pairs = zip(own.attentions, [other.attentions[index] for index in (0, 0, 1, 1)], strict=True)
    torch.testing.assert_close(found, sum(losses.attention_map(s, t, own.tokens) for s, t in pairs))


@pytest.mark.parametrize("name", ["at", "sp", "fitnet", "adversarial", "byot"])
def test_maps_of_sentences_would_teach_their_padding(name: str) -> None:
    with pytest.raises(AdapterError, match="`hidden_state`"):
        build_terms(text(LSTMClassifier, 1.0), text(LSTMClassifier, 1.0), name)


def test_models_that_read_something_else_do_not_teach_each_other() -> None:
    with pytest.raises(AdapterError, match="same tokens"):
        build_terms(text(LSTMClassifier, 1.0), text(BertClassifier, 0.25, '{"other": 1}'), "soft_kl")
    with pytest.raises(AdapterError, match="same tokens"):
        build_terms(text(LSTMClassifier, 1.0), picture(cnn), "soft_kl")
    with pytest.raises(AdapterError, match="`scale`"):
        build_terms(text(LSTMClassifier, 1.0), text(LSTMClassifier, 1.0), "soft_kl", scale=2.0)
    with pytest.raises(AdapterError, match="LSTMClassifier has none"):
        build_terms(text(LSTMClassifier, 1.0), text(BertClassifier, 0.25), "attention_map")


@pytest.mark.parametrize("name", ["bckd", "fgd", "hidden_state", "pixel_kl"])
def test_a_loss_that_needs_what_pictures_have_not_is_refused(name: str) -> None:
    with pytest.raises(AdapterError, match="It learns by"):
        build_terms(picture(cnn), picture(resnet18), name)


def test_a_cache_keeps_what_the_terms_need() -> None:
    student, teacher = picture(cnn), LiveTeacher(picture(resnet18))
    assert kept_for(student, teacher, [Term("soft_kl")]).levels == ()
    kept = kept_for(student, teacher, [Term("at"), Term("rkd")])
    assert kept.levels == (1, 2, 3)
    assert kept.embedding


def test_what_is_packed_comes_back() -> None:
    from detkd.teachers.packing_classes import ClassFrame

    teacher = picture(resnet18)
    found = outputs(teacher, torch.rand(2, 3, *SIZE))
    kept = kept_for(picture(cnn), LiveTeacher(teacher), [Term("at"), Term("rkd")])
    frame = ClassFrame.of(found)
    again = frame.unpack(frame.pack(found, kept))
    torch.testing.assert_close(again.logits, found.logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.embedding, found.embedding, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.features[2], found.features[2], rtol=1e-3, atol=1e-3)
    assert again.features[0].is_meta
    bare = frame.unpack(frame.pack(found, replace(kept, levels=(), embedding=False)))
    assert bare.embedding.shape == (2, 0)


@pytest.mark.parametrize("balance", ["none", "gradient_ratio", "uncertainty"])
def test_ca_mkd_trusts_the_teacher_that_knows_a_sample(balance: Any) -> None:
    student, teachers = picture(cnn), [picture(resnet18), picture(resnet18)]
    distiller = Distiller(
        student, [LiveTeacher(teacher) for teacher in teachers], [Term("soft_kl")], balance, ensemble="ca_mkd"
    )
    distiller.attach()
    images, labels = torch.rand(4, 3, *SIZE), torch.tensor([0, 1, 2, 0])
    student.model.train()
    task: Any = student.model(list(images), labels)
    result = distiller(images, ClassTargets(labels), task["cross_entropy"])
    result.loss.backward()
    assert result.terms["soft_kl"] > 0
    assert next(student.model.parameters()).grad is not None

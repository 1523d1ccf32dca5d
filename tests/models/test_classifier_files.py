"""Classifiers: what they are called with, and their checkpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from detkd.data.text import train_tokenizer
from detkd.errors import ConfigError, WeightsError
from detkd.model_config import CLASSIFIERS, TEXTS, ModelConfig
from detkd.models.classifier_files import BUILDERS, build_model, load_model, read_tokenizer, save_model
from detkd.weights import METADATA, saved_name

CLASSES = ("cat", "dog", "owl")
WORDS = train_tokenizer(["the cat sat", "the dog sat", "an owl sat"], 60)
SMALL = {"resnet18": 0.125, "cnn": 0.25, "mobilenet_v3_small": 0.25, "bert": 0.125, "transformer": 0.25, "lstm": 0.25}


def build(name: str, **spec: Any) -> Any:
    tokenizer = WORDS if name in TEXTS else None
    config = ModelConfig(model=name, **{"width": SMALL[name], **spec})
    return build_model(config, CLASSES, role="student", imgsz=32, tokenizer=tokenizer)[0]


def inputs(name: str) -> torch.Tensor:
    return torch.randint(1, 20, (4, 1, 1, 7)) if name in TEXTS else torch.rand(4, 3, 32, 32)


def test_every_name_has_a_family() -> None:
    assert {*CLASSIFIERS, *TEXTS} == set(BUILDERS)
    assert ModelConfig(model="cnn").family == "classifier"
    assert ModelConfig(model="lstm").family == "text"


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_it_answers_logits_and_learns_by_its_loss(name: str) -> None:
    model, batch, labels = build(name), inputs(name), torch.tensor([0, 1, 2, 0])
    losses = model(list(batch), labels)
    losses["cross_entropy"].backward()
    lazy = {key for key, value in model.named_parameters() if value.grad is None}
    assert not lazy or (name == "bert" and all("token_type" in key for key in lazy)), lazy
    model.eval()
    logits = model(batch)
    assert logits.shape == (4, 3)
    expected = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(model(batch, labels)["cross_entropy"], expected)


@pytest.mark.parametrize("name", sorted(BUILDERS))
def test_a_checkpoint_brings_back_the_same_model(name: str, tmp_path: Path) -> None:
    model = build(name).eval()
    save_model(model, tmp_path / "student.safetensors")
    assert saved_name(tmp_path / "student.safetensors") == name
    again = load_model(tmp_path / "student.safetensors").eval()
    batch = inputs(name)
    torch.testing.assert_close(again(batch), model(batch), rtol=0, atol=0)
    assert again.class_names == CLASSES
    assert again.tokenizer == model.tokenizer


def test_a_label_is_smoothed_in_training() -> None:
    model, batch = build("cnn", smoothing=0.3).eval(), inputs("cnn")
    labels = torch.tensor([0, 1, 2, 0])
    expected = torch.nn.functional.cross_entropy(model(batch), labels, label_smoothing=0.3)
    torch.testing.assert_close(model(batch, labels)["cross_entropy"], expected)


@pytest.mark.parametrize("name", TEXTS)
def test_padding_changes_nothing(name: str) -> None:
    model, ids = build(name).eval(), inputs(name)
    padded = torch.nn.functional.pad(ids, (0, 5))
    torch.testing.assert_close(model(padded), model(ids), rtol=1e-4, atol=1e-5)


def test_width_and_depth_scale_a_model() -> None:
    def count(name: str, **spec: Any) -> int:
        return sum(parameter.numel() for parameter in build(name, **spec).parameters())

    assert count("resnet18", width=0.25) > 3 * count("resnet18", width=0.125)
    assert count("transformer", depth=2.0) > 1.5 * count("transformer", depth=0.5)


HEADER = {"name": "cnn", "class_names": ["a", "b"], "imgsz": 32, "width": 0.25}


@pytest.mark.parametrize(
    "change",
    [
        {"name": "nothing"},
        {"imgsz": 10**9},
        {"imgsz": -1},
        {"width": 1e9},
        {"width": "wide"},
        {"class_names": "ab"},
        {"class_names": []},
        {"class_names": [1, 2]},
        {"vocabulary": 10**12},
        {"vocabulary": 5},
        {"smoothing": 2.0},
        {"command": "rm"},
    ],
)
def test_a_hostile_header_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={METADATA: json.dumps({**HEADER, **change})})
    with pytest.raises(WeightsError, match="student"):
        load_model(path)


def test_tensors_of_another_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    save_file({"x": torch.zeros(1)}, path, metadata={METADATA: json.dumps(HEADER)})
    with pytest.raises(WeightsError, match="tensors of a cnn"):
        load_model(path)
    with pytest.raises(WeightsError, match="no tokenizer"):
        read_tokenizer(path)


def test_a_state_dict_fills_what_fits_a_model_of_other_classes(tmp_path: Path) -> None:
    torch.save(build("cnn").state_dict(), tmp_path / "weights.pt")
    spec = ModelConfig(model="cnn", width=0.25, weights=tmp_path / "weights.pt")
    model, origin = build_model(spec, ["a", "b"], role="student", imgsz=32)
    assert "fit and fill" in origin
    torch.testing.assert_close(
        model.state_dict()["body.0.0.weight"], torch.load(tmp_path / "weights.pt")["body.0.0.weight"]
    )


def test_faulty_settings_are_named() -> None:
    with pytest.raises(ConfigError, match=r"student\.depth"):
        build("cnn", depth=2.0)
    with pytest.raises(ConfigError, match="is of sentences"):
        build_model(ModelConfig(model="lstm"), CLASSES, role="student", imgsz=32)


def test_a_folder_of_transformers_is_read_without_its_code_or_pickles(tmp_path: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=3,
        max_position_embeddings=40,
    )
    bert = transformers.BertForSequenceClassification(config).eval()
    bert.save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(WORDS)
    spec = ModelConfig(model="bert", weights=tmp_path)
    model, _ = build_model(spec, CLASSES, role="teacher", imgsz=32, tokenizer=read_tokenizer(tmp_path))
    ids = inputs("bert")
    torch.testing.assert_close(model.eval()(ids), bert(input_ids=ids.flatten(1)).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(WeightsError, match="2 classes"):
        build_model(spec, CLASSES[:2], role="teacher", imgsz=32, tokenizer=WORDS)
    with pytest.raises(WeightsError, match="others"):
        build_model(spec, CLASSES, role="teacher", imgsz=32, tokenizer=train_tokenizer(["else"], 70))
    with pytest.raises(ConfigError, match="40 tokens at most"):
        build_model(spec, CLASSES, role="teacher", imgsz=41, tokenizer=WORDS)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="as safetensors"):
        build_model(spec, CLASSES, role="teacher", imgsz=32, tokenizer=WORDS)


def masked_bert(folder: Path) -> Any:
    """A BERT that was trained on masked words, in a folder of transformers."""
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=48, max_position_embeddings=40, hidden_act="relu")
    bert = transformers.BertForMaskedLM(config)
    bert.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(WORDS)
    return bert


def test_a_student_starts_from_a_folder_with_a_new_last_layer_and_is_built_again_from_its_checkpoint(
    tmp_path: Path,
) -> None:
    bert = masked_bert(tmp_path)
    spec = ModelConfig(model="bert", weights=tmp_path)
    with pytest.raises(WeightsError, match=r"lacks \['bert.pooler"):
        build_model(spec, CLASSES, role="teacher", imgsz=32, tokenizer=WORDS)
    student, origin = build_model(spec, CLASSES, role="student", imgsz=32, tokenizer=WORDS)
    assert origin.endswith(", but for a new last layer")
    words = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(student.state_dict()[f"bert.{words}"], bert.state_dict()[words])
    save_model(student, tmp_path / "student.safetensors")
    again = load_model(tmp_path / "student.safetensors")
    ids = inputs("bert")
    torch.testing.assert_close(again.eval()(ids), student.eval()(ids))
    assert again.tokenizer == WORDS


@pytest.mark.parametrize(
    "change",
    [{"hidden_size": 10**9}, {"hidden_size": 33}, {"num_hidden_layers": 0}, {"hidden_act": "eval"}, {"vocab_size": None}],
)
def test_sizes_that_no_bert_can_have_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    from detkd.models.bert_files import config_from_json, config_to_json

    text = config_to_json(masked_bert(tmp_path).config)
    assert config_from_json(text, 3, tmp_path).hidden_size == 32
    with pytest.raises(WeightsError, match="sizes"):
        config_from_json(json.dumps({**json.loads(text), **change}), 3, tmp_path)
    with pytest.raises(WeightsError, match="sizes"):
        config_from_json("[]", 3, tmp_path)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, CLASSES),
        (dict(enumerate(CLASSES[::-1])), CLASSES[::-1]),
        ({0: "x", 1: "y", 2: "z"}, ("x", "y", "z")),
    ],
)
def test_a_bert_is_read_with_its_own_order_of_classes(
    own: dict[int, str], expected: tuple[str, ...], tmp_path: Path
) -> None:
    import transformers

    sizes: dict[str, Any] = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(**sizes, intermediate_size=48, id2label=own, label2id={n: i for i, n in own.items()})
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text(WORDS)
    spec = ModelConfig(model="bert", weights=tmp_path)
    model, _ = build_model(spec, CLASSES, role="teacher", imgsz=32, tokenizer=WORDS)
    assert model.class_names == expected
    numbers, _ = build_model(spec, ("0", "1", "2"), role="teacher", imgsz=32, tokenizer=WORDS)
    assert numbers.class_names == ("0", "1", "2")


@pytest.mark.parametrize("name", TEXTS)
def test_sentences_longer_than_a_checkpoint_knows_places_of_are_refused(name: str, tmp_path: Path) -> None:
    save_model(build(name), tmp_path / "student.safetensors")
    spec = ModelConfig(weights=tmp_path / "student.safetensors")
    most = load_model(tmp_path / "student.safetensors").architecture.imgsz
    build_model(spec, CLASSES, role="teacher", imgsz=most, tokenizer=WORDS)
    if name == "lstm":
        build_model(spec, CLASSES, role="teacher", imgsz=most + 1, tokenizer=WORDS)
        return
    with pytest.raises(ConfigError, match=f"{most} tokens at most"):
        build_model(spec, CLASSES, role="teacher", imgsz=most + 1, tokenizer=WORDS)

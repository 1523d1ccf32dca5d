"""Whole runs of classifiers, on pictures and on sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.engines.caching import cache_teachers
from detkd.engines.classification import load_data, logits_of
from detkd.engines.run import run_config
from detkd.errors import AdapterError, ConfigError, WeightsError
from detkd.evaluation.classification import classification_metrics
from detkd.models.classifier_files import load_model, read_tokenizer, vocabulary_size
from tests.engines.classes import TINY, configure_classes, configure_text, tensors_of, write_pictures, write_sentences

if TYPE_CHECKING:
    from detkd.config import ClassificationConfig

pytestmark = pytest.mark.usefixtures("one_thread")
PICTURE_TERMS = {
    name: {}
    for name in ("soft_kl", "at", "dkd", "rkd", "sp", "dist", "class_label", "consistency", "adversarial", "fitnet")
}
TEXT_TERMS: dict[str, Any] = {"soft_kl": {}, "hidden_state": {}, "attention_map": {"distance": "kl"}, "rkd": {}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 14, "test": 8})


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentences(tmp_path_factory.mktemp("sentences"), {"train": 96, "dev": 16, "test": 32})


@pytest.fixture(scope="module")
def teacher(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    config = configure_classes(pictures, student={"model": "resnet18", "width": 0.125}, output=tmp_path_factory.mktemp("t"))
    return run_config(config) / "student.safetensors"


@pytest.fixture(scope="module")
def text_teacher(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    student, train = {"model": "bert", "width": 0.25, "depth": 0.5}, {"epochs": 6, "imgsz": 32, "batch": 8}
    optim = {"lr": 0.002, "warmup_epochs": 0, "schedule": "constant"}
    config = configure_text(sentences, student=student, train=train, optim=optim, output=tmp_path_factory.mktemp("t"))
    return run_config(config) / "student.safetensors"


def results_of(config: ClassificationConfig) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_config(config) / "results.json").read_text())
    return content


def taught_by(*teachers: Path, terms: dict[str, Any], **more: Any) -> dict[str, Any]:
    specs = [{"weights": str(path)} for path in teachers]
    return {"teacher": specs[0], "terms": terms, **more} if len(specs) == 1 else {"teachers": specs, "terms": terms, **more}


def test_a_student_of_pictures_learns_by_every_term_and_is_reported(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    config = configure_classes(pictures, output=tmp_path, distill=taught_by(teacher, terms=PICTURE_TERMS))
    results = results_of(config)
    assert results["task"] == "classify"
    assert results["data"]["images"] == {"train": 39, "val": 3, "test": 24}
    last = results["history"][-1]
    for name in PICTURE_TERMS:
        assert last[f"train/{name}"] > 0, name
        assert results["distill_weights"][-1][name] > 0, name
    metrics = results["student"]["metrics"]["test"]
    assert metrics["accuracy"] > 0.6  # three colours, chance 1/3
    assert 0 <= metrics["agreement"] <= 1
    assert results["teachers"][0]["metrics"]["test"].keys() == {"accuracy", "NLL", "ECE", "intervals"}
    for name in ("reliability", "similarity", "attention", "training"):
        assert (tmp_path / "run" / f"{name}.png").stat().st_size > 1000
    names = set(tensors_of(tmp_path / "run" / "student.safetensors"))
    assert names == set(load_model(tmp_path / "run" / "student.safetensors").state_dict())


def test_a_student_of_sentences_learns_by_states_and_attention(sentences: Path, text_teacher: Path, tmp_path: Path) -> None:
    config = configure_text(sentences, output=tmp_path, distill=taught_by(text_teacher, terms=TEXT_TERMS))
    results = results_of(config)
    for name in TEXT_TERMS:
        assert results["history"][-1][f"train/{name}"] > 0, name
        assert results["distill_weights"][-1][name] > 0, name
    assert results["student"]["metrics"]["test"]["accuracy"] > 0.8  # one word says the label
    tokenizer = (tmp_path / "run" / "tokenizer.json").read_text()
    assert load_model(tmp_path / "run" / "student.safetensors").tokenizer == tokenizer


def test_an_lstm_learns_from_a_bert_but_not_its_attention(sentences: Path, text_teacher: Path, tmp_path: Path) -> None:
    student = {"model": "lstm", "width": 0.25}
    terms: dict[str, Any] = {"soft_kl": {}, "hidden_state": {}}
    changes: dict[str, Any] = {"student": student, "output": tmp_path}
    refused = configure_text(sentences, **changes, distill=taught_by(text_teacher, terms={"attention_map": {}}))
    with pytest.raises(AdapterError, match="LSTMClassifier has none"):
        run_config(refused)
    results = results_of(configure_text(sentences, **changes, distill=taught_by(text_teacher, terms=terms)))
    assert results["history"][-1]["train/hidden_state"] > 0


@pytest.mark.parametrize("ensemble", ["mean", "ca_mkd"])
def test_several_teachers_teach_together(ensemble: str, pictures: Path, teacher: Path, tmp_path: Path) -> None:
    distill = taught_by(teacher, teacher, terms={"soft_kl": {}, "at": {}}, ensemble=ensemble)
    results = results_of(configure_classes(pictures, output=tmp_path, distill=distill))
    assert len(results["teachers"]) == 2


def test_an_average_of_the_student_teaches_it(pictures: Path, tmp_path: Path) -> None:
    spec = {"ema": 0.9, "mirrored": True}
    config = configure_classes(pictures, output=tmp_path, distill={"teacher": spec, "terms": {"consistency": {}, "at": {}}})
    results = results_of(config)
    assert results["history"][-1]["train/consistency"] > 0
    student, average = (section["metrics"]["test"] for section in (results["student"], results["teachers"][0]))
    assert student["NLL"] != average["NLL"]
    assert average["accuracy"] > 0.5  # it has learnt, as one that stayed as it began could not
    saved = torch.load(tmp_path / "run" / "lightning" / "last.ckpt", weights_only=True)
    assert saved["callbacks"]["Averaging teacher 1"]["steps"] == 10
    assert not [name for name in saved["state_dict"] if "teacher" in name]


def test_a_cached_teacher_says_what_a_live_one_says(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    distill = taught_by(teacher, terms={"soft_kl": {}, "rkd": {}, "at": {}})
    distill["teacher"] |= {"cache": str(tmp_path / "cache"), "views": 2}
    config = configure_classes(pictures, output=tmp_path, distill=distill)
    cache_teachers(config)
    cached = results_of(config)["history"]
    distill["teacher"].pop("cache")
    live = results_of(configure_classes(pictures, output=tmp_path, name="live", distill=distill))["history"]
    for name in ("soft_kl", "rkd", "at"):  # other views, so alike but not the same
        assert cached[0][f"train/{name}"] == pytest.approx(live[0][f"train/{name}"], rel=0.5)


def test_a_cache_of_other_moves_is_refused(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    from detkd.errors import CacheError

    distill = taught_by(teacher, terms={"soft_kl": {}})
    distill["teacher"] |= {"cache": str(tmp_path / "cache"), "views": 1}
    cache_teachers(configure_classes(pictures, output=tmp_path, distill=distill))
    with pytest.raises(CacheError, match="shift"):
        run_config(configure_classes(pictures, output=tmp_path, distill=distill, classify={"shift": 2}))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_that_was_cut_goes_on_to_the_same_end(workers: int, pictures: Path, teacher: Path, tmp_path: Path) -> None:
    """A process that composes pictures asks for the first of them before the epoch begins."""
    from detkd.engines.lightning.callbacks import Watching
    from tests.engines.conftest import CutError

    distill = taught_by(teacher, terms={"soft_kl": {}, "fitnet": {}})
    how: dict[str, Any] = {"distill": distill, "loading": {"workers": workers}}
    whole = run_config(configure_classes(pictures, output=tmp_path / "whole", **how))
    config = configure_classes(pictures, output=tmp_path / "cut", **how)
    original = Watching.on_train_epoch_end

    def cut(self: Any, trainer: Any, module: Any) -> None:
        original(self, trainer, module)
        raise CutError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Watching, "on_train_epoch_end", cut)
        with pytest.raises(CutError):
            run_config(config)
    resumed = run_config(config, resume=True)
    found = [tensors_of(folder / "student.safetensors") for folder in (whole, resumed)]
    for name, tensor in found[0].items():
        torch.testing.assert_close(tensor, found[1][name], rtol=0, atol=0)


def test_what_does_not_fit_is_refused_before_training(
    pictures: Path, sentences: Path, teacher: Path, text_teacher: Path, tmp_path: Path
) -> None:
    def refused(error: type[Exception], match: str, config: ClassificationConfig) -> None:
        with pytest.raises(error, match=match):
            run_config(config)
        assert not (tmp_path / "run").exists()

    out: dict[str, Any] = {"output": tmp_path}
    boxes = taught_by(teacher, terms={"bckd": {}})
    refused(AdapterError, "It learns by `adversarial`", configure_classes(pictures, **out, distill=boxes))
    masked = taught_by(teacher, terms={"hidden_state": {}})
    refused(AdapterError, "`hidden_state`", configure_classes(pictures, **out, distill=masked))
    other = {"vocabulary": 64}
    soft = taught_by(text_teacher, terms={"soft_kl": {}})
    refused(WeightsError, "classify.tokenizer=", configure_text(sentences, **out, distill=soft, classify=other))
    refused(ConfigError, "evaluate", configure_classes(pictures, **out, evaluate=["dev"]))
    refused(ConfigError, "loading.sampling", configure_classes(pictures, **out, loading={"sampling": "repeat_factor"}))
    refused(ConfigError, "augment", configure_text(sentences, **out, augment=[{"HorizontalFlip": {}}]))
    deep = {**TINY, "depth": 2.0}
    refused(ConfigError, "student.depth", configure_classes(pictures, **out, student=deep))


def test_a_tokenizer_of_the_teacher_is_read_by_the_student(sentences: Path, text_teacher: Path, tmp_path: Path) -> None:
    classify = {"vocabulary": 100, "tokenizer": str(text_teacher)}
    distill = taught_by(text_teacher, terms={"soft_kl": {}})
    results = results_of(configure_text(sentences, output=tmp_path, classify=classify, distill=distill))
    assert results["student"]["metrics"]["test"]["agreement"] >= 0.5


def test_a_student_goes_on_from_a_folder_of_transformers(sentences: Path, text_teacher: Path, tmp_path: Path) -> None:
    import transformers

    folder = tmp_path / "pretrained"
    folder.mkdir()
    tokenizer = read_tokenizer(text_teacher)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=vocabulary_size(tokenizer), max_position_embeddings=48, **sizes)
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tokenizer)
    changes: dict[str, Any] = {"classify": {"tokenizer": str(folder)}, "output": tmp_path}
    distill = taught_by(text_teacher, terms={"soft_kl": {}})
    student = {"model": "bert", "weights": str(folder)}
    results = results_of(configure_text(sentences, student=student, distill=distill, **changes))
    assert results["history"][-1]["train/soft_kl"] > 0
    assert load_model(tmp_path / "run" / "student.safetensors").state_dict().keys() == set(
        tensors_of(tmp_path / "run" / "student.safetensors")
    )


def test_a_teacher_is_judged_at_the_size_at_which_it_teaches(pictures: Path, teacher: Path, tmp_path: Path) -> None:
    distill = taught_by(teacher, terms={"soft_kl": {}})
    distill["teacher"]["scale"] = 2.0
    config = configure_classes(pictures, output=tmp_path, distill=distill, train={"epochs": 1, "imgsz": 32, "batch": 8})
    found = results_of(config)["teachers"][0]["metrics"]["test"]
    part = load_data(config).parts["test"]
    model = load_model(teacher)
    judged = [logits_of(model, part, 8, scale=scale) for scale in (1.0, 2.0)]
    assert not torch.equal(*judged)
    assert found["NLL"] == pytest.approx(classification_metrics(judged[1], torch.from_numpy(part.labels))["NLL"])


def test_logits_come_in_the_order_of_the_samples_whatever_their_lengths(sentences: Path, text_teacher: Path) -> None:
    part = load_data(configure_text(sentences)).parts["test"]
    model = load_model(text_teacher).eval()
    with torch.no_grad():
        alone = torch.cat([model(part.batch([place])) for place in range(len(part))])
    torch.testing.assert_close(logits_of(model, part, 5), alone)
    torch.testing.assert_close(logits_of(model, part, 2, [7, 3, 30]), alone[[7, 3, 30]])

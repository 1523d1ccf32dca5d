"""What a teacher says of sentences, kept and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from detkd.engines.caching import cache_teachers
from detkd.engines.run import run_config
from detkd.errors import CacheError
from detkd.teachers.store import Index
from tests.engines.classes import configure_text, write_sentences
from tests.engines.runs import farthest, results

if TYPE_CHECKING:
    from detkd.config import ClassificationConfig

pytestmark = pytest.mark.usefixtures("one_thread")
TERMS: dict[str, Any] = {"soft_kl": {}, "rkd": {}, "hidden_state": {}, "attention_map": {}}
COUNTS = {"train": 48, "dev": 8, "test": 8}


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sentences(tmp_path_factory.mktemp("sentences"), COUNTS)


@pytest.fixture(scope="module")
def teacher(sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    student = {"model": "transformer", "width": 0.5}
    config = configure_text(sentences, student=student, output=tmp_path_factory.mktemp("t"))
    return run_config(config) / "student.safetensors"


def configure(data: Path, teacher: Path, output: Path, name: str, terms: Any = None, **spec: Any) -> ClassificationConfig:
    distill = {"teacher": {"weights": str(teacher), **spec}, "terms": TERMS if terms is None else terms}
    return configure_text(data, output=output, name=name, distill=distill)


def test_a_cached_teacher_teaches_what_a_live_one_does(sentences: Path, teacher: Path, tmp_path: Path) -> None:
    config = configure(sentences, teacher, tmp_path, "cached", cache=str(tmp_path / "cache"))
    cache_teachers(config)
    kept = Index.load(tmp_path / "cache")
    shapes = {name: tuple(field.shape) for name, field in kept.fields.items()}
    longest = shapes["features.0"][1]
    assert shapes["logits"] == (2,)
    assert shapes["attentions.1"] == (2, longest, longest)
    assert len(kept.shards) == 1  # sentences have one view, however many are asked for
    cached, live = (
        results(run_config(each))["history"] for each in (config, configure(sentences, teacher, tmp_path, "live"))
    )
    assert farthest(cached, live) < 1e-2


def test_only_what_a_term_asks_for_is_kept(sentences: Path, teacher: Path, tmp_path: Path) -> None:
    cache_teachers(configure(sentences, teacher, tmp_path, "run", {"soft_kl": {}}, cache=str(tmp_path / "cache")))
    assert set(Index.load(tmp_path / "cache").fields) == {"logits"}
    with pytest.raises(CacheError, match=r"attentions|embedding|features"):
        run_config(configure(sentences, teacher, tmp_path, "run", cache=str(tmp_path / "cache")))


def test_a_cache_of_other_sentences_is_refused(sentences: Path, teacher: Path, tmp_path: Path) -> None:
    cache = str(tmp_path / "cache")
    cache_teachers(configure(sentences, teacher, tmp_path, "run", {"soft_kl": {}}, cache=cache))
    other = write_sentences(tmp_path, {**COUNTS, "train": 40})
    changes: Any = {"classify": {"tokenizer": str(teacher)}, "output": tmp_path, "name": "other"}
    distill = {"teacher": {"weights": str(teacher), "cache": cache}, "terms": {"soft_kl": {}}}
    with pytest.raises(CacheError, match="images"):
        run_config(configure_text(other, distill=distill, **changes))

"""Whatever a file holds, its parser gives what it promises or says what is wrong; nothing else is raised."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from detkd import ops
from detkd.config import load_config, parse_config
from detkd.data import coco, voc, yolo
from detkd.data.description import Description, read_mapping
from detkd.data.detection import DetectionDataset
from detkd.data.masks import InstanceMask, SemanticMask, decode_segment
from detkd.data.text import TextDataset
from detkd.errors import ArgumentError, CacheError, ConfigError, DataError
from detkd.evaluation.coco import evaluate_coco
from detkd.teachers.store import Index
from detkd.trees import parse_json, parse_yaml
from tests.corpus.commands import FOUND, TRUTH
from tests.corpus.datasets import boxed

many = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
numbers = st.one_of(st.integers(), st.floats(), st.just(10**400))
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.one_of(st.text(max_size=8), st.integers()), inner, max_size=4)
    ),
    max_leaves=8,
)


def altered(tree: Any) -> st.SearchStrategy[Any]:
    """The tree with some of its values replaced by anything."""
    if isinstance(tree, dict):
        kept = st.fixed_dictionaries({key: altered(value) for key, value in tree.items()})
    elif isinstance(tree, list):
        kept = st.tuples(*map(altered, tree)).map(list)
    else:
        kept = st.just(tree)
    return st.integers(0, 7).flatmap(lambda chance: values if chance == 0 else kept)


def refused_by(kind: type[Exception], work: Callable[[], Any]) -> Any:
    """What some work gives; the error of its kind has one line a fault and no more than a screen."""
    said = "nothing"
    found = None
    try:
        found = work()
    except kind as error:
        said = str(error)
    assert said
    assert all(len(line) < 3000 for line in said.splitlines())
    return found


def annotated(row: list[float]) -> bytes:
    """Pascal VOC's XML of an object with such sides."""
    return boxed(" ".join(map(str, row))).encode()


def tabled(text: str) -> bytes:
    """A table of sentences."""
    return f"sentence\tlabel\n{text}".encode()


CONFIG = {
    "name": "run",
    "data": "data.yaml",
    "student": {"model": "unet", "width": 0.5},
    "distill": {
        "teacher": {"weights": "a.safetensors", "scale": 1.0, "classes": {"a": "b"}},
        "terms": {"pixel_kl": {"weight": 1}},
    },
    "train": {"epochs": 1, "imgsz": 64, "batch": 2, "seed": 0, "device": "cpu"},
    "augment": [{"HorizontalFlip": {"p": 0.5}}],
    "optim": {"lr": 0.1},
    "trainer": {},
    "evaluate": ["val"],
}
DATA = {
    "path": ".",
    "train": "images/train",
    "val": "images/val",
    "names": {0: "a", 1: "b"},
    "format": "coco",
    "holdout": 2,
}
INDEX = {
    "format": 1,
    "fingerprint": {"data": {"images": 4}},
    "images": 4,
    "rows": 2,
    "fields": {"logits": {"dtype": "float16", "shape": [2, 3]}},
    "shards": {"full-000-00000.safetensors": {"bytes": 5, "blake2b": "aa"}},
}
MASKED = {**TRUTH, "annotations": [{**TRUTH["annotations"][0], "segmentation": [[1, 1, 5, 1, 5, 5]]}]}  # type: ignore[dict-item]


@many
@given(altered(CONFIG))
def test_configurations(tree: Any) -> None:
    if isinstance(tree, dict):
        refused_by(ConfigError, lambda: parse_config(tree))


@many
@given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass"))))
@example(b"&a [*a]")
@example(b"!!timestamp x")
@example(b"? !!set {}\n: 1")
def test_bytes_of_a_yaml(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    refused_by(ConfigError, lambda: load_config(tmp_path / "a.yaml"))
    refused_by(DataError, lambda: read_mapping(tmp_path / "a.yaml"))
    with suppress(ValueError):
        parse_json(content)
    with suppress(ValueError):
        parse_yaml(content.decode("latin-1"))


@many
@given(altered(DATA))
def test_descriptions(tmp_path: Path, tree: Any) -> None:
    def read() -> None:
        description = Description.of(tmp_path / "data.yaml", tree)
        description.splits()
        description.names()

    if isinstance(tree, dict):
        refused_by(DataError, read)


@many
@given(altered(MASKED))
def test_coco(tmp_path: Path, tree: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps(tree))
    found = refused_by(DataError, lambda: coco.read_split(tmp_path / "a.json", tmp_path, ["disc"]))
    for image in found[0] if found else []:
        assert np.isfinite(image.boxes).all()
        for segment in image.segments:
            if segment is not None and image.width * image.height < 10_000:
                assert decode_segment(segment, image.height, image.width).shape == (image.height, image.width)


@many
@given(altered(MASKED), altered([{**FOUND, "segmentation": {"size": [10, 10], "counts": [5, 95]}}]))
def test_scores(tmp_path: Path, truth: Any, found: Any) -> None:
    for name, tree in (("truth", truth), ("found", found)):
        (tmp_path / f"{name}.json").write_text(json.dumps(tree))
    for kind in ("bbox", "segm"):
        refused_by(DataError, lambda kind=kind: evaluate_coco(tmp_path / "truth.json", tmp_path / "found.json", kind))


@many
@given(st.text("0123456789 .-eniaf\n\t", max_size=60))
def test_yolo(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    for label, row in refused_by(DataError, lambda: yolo.read_labels(tmp_path / "a.txt", 3)) or []:
        assert 0 <= label < 3
        assert np.isfinite(row).all()


@many
@given(
    st.one_of(
        st.binary(max_size=200), st.lists(numbers, max_size=5).map(lambda row: boxed(" ".join(map(str, row))).encode())
    )
)
def test_voc(tmp_path: Path, content: bytes) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    (tmp_path / "a.xml").write_bytes(content)
    refused_by(DataError, lambda: voc.read_image(tmp_path / "a.png", tmp_path / "a.xml", ["disc"]))


@many
@given(st.binary(max_size=80), st.integers(0, 79), st.integers(0, 255))
def test_instance_maps(tmp_path: Path, content: bytes, place: int, value: int) -> None:
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "a.png")
    whole = bytearray((tmp_path / "a.png").read_bytes())
    whole[place % len(whole)] = value
    for broken in (bytes(whole), bytes(whole[:place]), content):
        (tmp_path / "a.png").write_bytes(broken)
        refused_by(DataError, InstanceMask(tmp_path / "a.png").decode)
        refused_by(DataError, SemanticMask(tmp_path / "a.png", 3).decode)


@many
@given(
    st.one_of(
        st.binary(max_size=80), st.text("ab\t\n\r\"'", max_size=40).map(lambda text: f"sentence\tlabel\n{text}".encode())
    )
)
def test_sentences(tmp_path: Path, content: bytes) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.tsv").write_bytes(content)
    refused_by(DataError, lambda: TextDataset.load(tmp_path, 8, vocabulary=64))


@many
@given(st.one_of(altered(INDEX), values))
def test_indices_of_caches(tmp_path: Path, tree: Any) -> None:
    (tmp_path / "index.json").write_text(json.dumps(tree))
    index = refused_by(CacheError, lambda: Index.load(tmp_path))
    if index is not None:
        assert all((tmp_path / shard.name).parent == tmp_path for shard in index.shards_of({"full": 1}))
        assert index.rows > 0
        refused_by(CacheError, lambda: index.check_fingerprint(tmp_path, {"data": {"images": 4}}))


OPS: dict[str, Callable[..., Any]] = {
    "kl_div": lambda s, t, w, x, y, n: ops.kl_div(s, t, dim=n, temperature=x, weight=w, reduction=y),
    "binary_kl": lambda s, t, w, x, y, n: ops.binary_kl(s, t, temperature=x, beta=float(n), weight=w, reduction=y),
    "attention_transfer": lambda s, t, w, x, y, n: ops.attention_transfer(s, t, p=x),
    "standardized_mse": lambda s, t, w, x, y, n: ops.standardized_mse(s, t),
}


@pytest.mark.parametrize("name", OPS)
@many
@given(
    st.lists(st.integers(0, 4), max_size=5),
    st.lists(st.integers(0, 4), max_size=5),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool]),
    st.one_of(st.floats(), st.sampled_from([1.0, 2.0, 4.0])),
    st.sampled_from(["none", "mean", "sum", "batchmean", "nonsense", None]),
    st.integers(-6, 6),
    st.booleans(),
)
def test_arguments_of_ops(
    name: str, one: list[int], other: list[int], dtype: torch.dtype, number: float, reduction: Any, dim: int, alike: bool
) -> None:
    student = torch.ones(one).to(dtype)
    teacher = torch.ones(one if alike else other).to(dtype)
    loss = refused_by(ArgumentError, lambda: OPS[name](student, teacher, None, number, reduction, dim))
    assert loss is None or loss.dtype in {torch.float32, dtype}  # of 64 bits where both are


def test_a_data_set_of_random_yaml_never_leaves_its_folder(tmp_path: Path) -> None:
    for place in ("..", "/etc", "images/../../..", "~", "C:\\x", "//etc"):
        (tmp_path / "data.yaml").write_text(f"train: '{place}'\nnames: [a]\n")
        dataset = refused_by(DataError, lambda: DetectionDataset.load(tmp_path / "data.yaml"))
        assert dataset is None or dataset.splits["train"].is_relative_to(tmp_path)

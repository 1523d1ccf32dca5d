"""Checkpoints, caches and results that are wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from detkd.weights import METADATA
from tests.corpus.case import Case, Change, write

FULL = {
    "weights.pt": "student.weights=HERE/weights.pt",
    "student.safetensors": "student={weights: HERE/student.safetensors}",
}


def plain(what: str, change: Change, on: str = "yolo") -> Case:
    """Weights beside the name of a model."""
    return Case(f"weights: {what} ({on})", on, "weights.pt", change, ("student.weights=HERE/weights.pt",))


def whole(what: str, change: Change) -> Case:
    """A checkpoint that says what it is of."""
    return Case(
        f"checkpoint: {what}",
        "pictures",
        "student.safetensors",
        change,
        ("student={weights: HERE/student.safetensors}",),
    )


def scored(what: str, change: Change, name: str = "student.safetensors", on: str = "yolo") -> Case:
    """The same, to be evaluated."""
    arguments = ("--weights", f"HERE/{name}", "--data", "HERE/data/data.yaml", "--split", "val")
    return Case(f"evaluation: {what}", on, name, change, arguments, "evaluate")


def saved(content: Any, name: str = "weights.pt") -> Change:
    """What torch saves."""
    return lambda here: torch.save(content, here / name)


def header(text: str | None, tensors: dict[str, torch.Tensor] | None = None) -> Change:
    """A safetensors with a header of detkd's."""

    def change(here: Path) -> None:
        metadata = None if text is None else {METADATA: text}
        save_file(tensors or {"a": torch.zeros(1)}, here / "student.safetensors", metadata=metadata)

    return change


def architecture(**changes: Any) -> str:
    """The header of a tiny classifier."""
    tree = {"name": "cnn", "class_names": ["blue", "green", "red"], "imgsz": 32, "width": 0.25, **changes}
    return json.dumps(tree)


PLAIN = [
    case
    for on in ("yolo", "coco", "instances", "pictures", "sentences")
    for case in (
        plain("empty", write("weights.pt", b""), on),
        plain("text", write("weights.pt", "no weights"), on),
        plain("a zip of nothing", write("weights.pt", b"PK\x05\x06" + b"\0" * 18), on),
        plain("a list", saved([1, 2]), on),
        plain("nothing", saved({}), on),
        plain("texts", saved({"a": "b"}), on),
        plain("other names", saved({"a": torch.zeros(1)}), on),
        plain("names of numbers", saved({1: torch.zeros(1)}), on),
        plain("a pickled class", saved({"model": torch.nn.Linear(1, 1)}), on),
        plain("an opcode that is none", write("weights.pt", b"\x80\x02\xff."), on),
    )
]
WHOLE = [
    whole("empty", write("student.safetensors", b"")),
    whole("text", write("student.safetensors", "no weights")),
    whole("a header beyond the file", write("student.safetensors", b"\xff" * 8 + b"{}")),
    whole(
        "tensors beyond the file",
        write(
            "student.safetensors",
            b"\x40\0\0\0\0\0\0\0" + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64),
        ),
    ),
    whole("no header", header(None)),
    whole("a header of no JSON", header("{")),
    whole("a header of a list", header("[]")),
    whole("a deep header", header("[" * 100_000)),
    Case(
        "checkpoint: an unknown name",
        "pictures",
        "nobody",
        header(architecture(name="nobody")),
        ("student={weights: HERE/student.safetensors}",),
    ),
    whole("a name of numbers", header(architecture(name=5))),
    whole("classes of numbers", header(architecture(class_names=[1, 2, 3]))),
    whole("a class of text", header(architecture(class_names="abc"))),
    whole("no classes", header(architecture(class_names=[]))),
    whole("an endless width", header(architecture(width=float("inf")))),
    whole("a width that is no number", header(architecture(width=float("nan")))),
    whole("a huge width", header(architecture(width=1e9))),
    whole("a negative size", header(architecture(imgsz=-1))),
    whole("an unknown key", header(architecture(nonsense=1))),
    whole("other tensors", header(architecture())),
    scored("text", write("student.safetensors", "no weights")),
    scored("no header", header(None)),
    scored("a deep header", header("[" * 100_000)),
    scored(
        "a huge U-Net",
        header(json.dumps({"name": "unet", "class_names": ["a"], "imgsz": 10**9, "width": 1, "boundary": False})),
        on="instances",
    ),
    scored("a list", saved([1], "student.pt"), "student.pt"),
    scored("a state dict without its model", saved({"a": torch.zeros(1)}, "student.pt"), "student.pt"),
    scored("a suffix of nobody", write("student.onnx", "no weights"), "student.onnx"),
]


def cached(what: str, says: str, change: Change) -> Case:
    """A cache of a teacher's outputs."""
    terms = "terms: {bckd: {}}"
    teacher = "{model: yolov5n.yaml, width: 0.125, cache: HERE/cache, views: 1}"
    return Case(f"cache: {what}", "yolo", says, change, (f"distill={{teacher: {teacher}, {terms}}}",))


def index(**changes: Any) -> Change:
    """An index of a cache."""
    tree = {"format": 1, "fingerprint": {}, "images": 4, "rows": 4, "fields": {}, "shards": {}, **changes}

    def change(here: Path) -> None:
        (here / "cache").mkdir()
        (here / "cache" / "index.json").write_text(json.dumps(tree))

    return change


def index_of(text: str) -> Change:
    """An index of any text."""

    def change(here: Path) -> None:
        (here / "cache").mkdir()
        (here / "cache" / "index.json").write_text(text)

    return change


CACHES = [
    cached("none", "index.json", lambda _: None),
    cached("no JSON", "index.json", index_of("{")),
    cached("deep JSON", "index.json", index_of("[" * 100_000)),
    cached("a list", "index.json", index_of("[]")),
    cached("another format", "format", index(format=[9])),
    cached("images of letters", "images", index(images="many")),
    cached("no images", "images", index(images=0)),
    cached("no rows", "rows", index(rows=0)),
    cached("rows of letters", "rows", index(rows="x")),
    cached("a field of an unknown type", "dtype", index(fields={"a": {"dtype": "object", "shape": [1]}})),
    cached("a field of a negative shape", "shape", index(fields={"a": {"dtype": "float16", "shape": [-1]}})),
    cached("a field of a huge shape", "shape", index(fields={"a": {"dtype": "float16", "shape": [10**30]}})),
    cached("a shard that climbs", "shards", index(shards={"../../run.yaml": {"bytes": 1, "blake2b": "x"}})),
    cached("a shard without size", "index.json", index(shards={"full-000-00000.safetensors": {}})),
    cached("a shard of letters", "shards", index(shards={"full-000-00000.safetensors": {"bytes": "x", "blake2b": "x"}})),
    cached("a fingerprint of lists", "index.json", index(fingerprint=[1])),
    cached("a fingerprint of numbers", "fingerprint", index(fingerprint={"data": 1})),
    cached("another fingerprint", "stale", index(fingerprint={"data": {"images": 9}})),
]
CASES = [*PLAIN, *WHOLE, *CACHES]

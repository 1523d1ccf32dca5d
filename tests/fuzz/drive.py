"""Coverage-guided fuzzing of everything that reads a file of somebody else's.

    python tests/fuzz/drive.py TARGET CORPUS [-max_total_time=SECONDS ...]

CORPUS is a folder that grows; the seeds are written into it first. What is raised beyond the error that a parser promises
ends the run, and the input is left as crash-… in the current folder.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import atheris

with atheris.instrument_imports(include=["detkd"]):
    from detkd.config import load_config
    from detkd.data import coco, voc, yolo
    from detkd.data.description import Description, read_mapping
    from detkd.data.masks import InstanceMask
    from detkd.data.text import _read
    from detkd.errors import CacheError, ConfigError, DataError, WeightsError
    from detkd.teachers.store import Index
    from detkd.weights import read_state_dict, saved_name

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save


class Target(NamedTuple):
    """A parser.

    Attributes:
        name: Of the file that it reads.
        read: Reads it; the folder has a picture of 8 x 8 pixels, `a.png`.
        promised: What it may raise.
        seeds: Whole files.
    """

    name: str
    read: Callable[[Path], object]
    promised: type[Exception]
    seeds: Callable[[Path], list[bytes]]


def main() -> None:
    """Fuzz a target."""
    target, corpus = TARGETS[sys.argv[1]], Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(folder / "a.png")
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(target.seeds(folder)):
            (corpus / f"seed-{number}").write_bytes(seed)
        path = folder / target.name

        def run(content: bytes) -> None:
            path.write_bytes(content)
            with suppress(target.promised):
                target.read(path)

        atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], run)
        atheris.Fuzz()


def texts(*seeds: str) -> Callable[[Path], list[bytes]]:
    """Seeds of text."""
    return lambda _: [seed.encode() for seed in seeds]


def describe(path: Path) -> None:
    """Read a data.yaml."""
    description = Description.of(path, read_mapping(path))
    description.splits()
    description.names()


def mask(folder: Path) -> list[bytes]:
    """An instance map."""
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(folder / "mask.png")
    return [(folder / "mask.png").read_bytes()]


def state(folder: Path) -> list[bytes]:
    """A state dict."""
    torch.save({"a": torch.zeros(2)}, folder / "state.pt")
    return [(folder / "state.pt").read_bytes()]


def header(_: Path) -> list[bytes]:
    """A checkpoint with a header."""
    return [save({"a": torch.zeros(1)}, {"detkd.architecture": "{}"})]


TRUTH = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}],
    "categories": [{"id": 1, "name": "a"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "segmentation": {"size": [8, 8], "counts": "P2"}}
    ],
}
INDEX = {
    "format": 1,
    "fingerprint": {"data": {"images": 4}},
    "images": 4,
    "rows": 2,
    "fields": {"logits": {"dtype": "float16", "shape": [2, 3]}},
    "shards": {"full-000-00000.safetensors": {"bytes": 5, "blake2b": "aa"}},
}
XML = (
    "<annotation><size><width>8</width><height>8</height></size><object><name>a</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
    "<xmax>5</xmax><ymax>5</ymax></bndbox></object></annotation>"
)
TARGETS = {
    "config": Target(
        "a.yaml", load_config, ConfigError, texts("name: a\ndata: b\nstudent: {model: unet}\ndistill: null\n")
    ),
    "description": Target(
        "data.yaml", describe, DataError, texts("path: .\ntrain: images\nnames: {0: a}\n", "names: &a [*a]")
    ),
    "coco": Target("a.json", lambda path: coco.read_split(path, path.parent, ["a"]), DataError, texts(json.dumps(TRUTH))),
    "yolo": Target("a.txt", lambda path: yolo.read_labels(path, 3), DataError, texts("0 .5 .5 .1 .1\n1 0 0 1 0 1 1\n")),
    "voc": Target("a.xml", lambda path: voc.read_image(path.with_name("a.png"), path, ["a"]), DataError, texts(XML)),
    "mask": Target("mask.png", lambda path: InstanceMask(path).decode(), DataError, mask),
    "sentences": Target("a.tsv", _read, DataError, texts("sentence\tlabel\ngood film\tgood\n")),
    "index": Target("index.json", lambda path: Index.load(path.parent), CacheError, texts(json.dumps(INDEX))),
    "weights": Target("a.pt", read_state_dict, WeightsError, state),
    "header": Target("a.safetensors", saved_name, WeightsError, header),
}


if __name__ == "__main__":
    main()

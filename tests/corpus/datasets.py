"""Data sets that are wrong, of every format."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.corpus.case import Case, Change, cut, folder_instead, keys, remove, write

YAML, PICTURE, LABEL = "data/data.yaml", "data/images/train/0.png", "data/labels/train/0.txt"
XML = "data/Annotations/0.xml"


def described(what: str, says: str, on: str = "yolo", **changes: Any) -> Case:
    """A data.yaml with other keys."""
    return Case(f"{on}: {what}", on, says, keys(YAML, **changes))


def labelled(what: str, text: str | bytes) -> Case:
    """A YOLO label with another content."""
    return Case(f"yolo: {what}", "yolo", "0.txt", write(LABEL, text))


def pictured(what: str, change: Change, on: str = "yolo", name: str = "0.png") -> Case:
    """A picture that is none."""
    return Case(f"{on}: {what}", on, name, change)


def noted(what: str, says: str, text: str) -> Case:
    """An XML with another content."""
    return Case(f"voc: {what}", "voc", says, write(XML, text))


def boxed(sides: str, name: str = "disc", size: str = "64") -> str:
    """Pascal VOC's XML of one object."""
    fields = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), sides.split(), strict=False)
    )
    frame = f"<size><width>{size}</width><height>64</height></size>"
    return f"<annotation>{frame}<object><name>{name}</name><bndbox>{fields}</bndbox></object></annotation>"


def coco(what: str, says: str, place: str, value: Any) -> Case:
    """A COCO json with one value replaced; `place` leads to it, such as images/0/id."""

    def change(here: Path) -> None:
        path = here / "data" / "train.json"
        tree = json.loads(path.read_text())
        *parts, last = [int(part) if part.isdigit() else part for part in place.split("/")]
        node = tree
        for part in parts:
            node = node[part]
        node[last] = value
        path.write_text(json.dumps(tree))

    return Case(f"coco: {what}", "coco", says, change)


def save(name: str, pixels: Any, **how: Any) -> Change:
    """Write a picture of some pixels."""
    return lambda here: Image.fromarray(np.asarray(pixels)).save(here / name, **how)


def zipped(what: str, says: str, members: dict[str, bytes]) -> Case:
    """Pictures to train on in a zip with other members."""

    def change(here: Path) -> None:
        shutil.rmtree(here / "data" / "train")
        with zipfile.ZipFile(here / "data" / "train.zip", "w") as file:
            for name, content in members.items():
                file.writestr(name, content)

    return Case(f"pictures: {what}", "pictures", says, change)


def table(what: str, text: str | bytes, says: str = "train.tsv") -> Case:
    """Sentences to train on with another content."""
    return Case(f"sentences: {what}", "sentences", says, write("data/train.tsv", text))


def linked(name: str, target: str) -> Change:
    """A link in place of a file."""

    def change(here: Path) -> None:
        (here / name).unlink()
        os.symlink(target.replace("HERE", str(here)), here / name)

    return change


def png(side: int = 8) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((side, side, 3), np.uint8)).save(buffer, "png")
    return buffer.getvalue()


def copied(name: str) -> Change:
    """The same file name in another folder of the split."""

    def change(here: Path) -> None:
        (here / "data/images/train/more").mkdir()
        shutil.copy(here / name, here / "data/images/train/more")

    return change


DESCRIPTIONS = [
    Case("yolo: no data.yaml", "yolo", "data.yaml", remove(YAML)),
    Case("yolo: data.yaml a folder", "yolo", "data.yaml", folder_instead(YAML)),
    Case("yolo: data.yaml empty", "yolo", "data.yaml", write(YAML, "")),
    Case("yolo: data.yaml a list", "yolo", "data.yaml", write(YAML, "- a\n")),
    Case("yolo: data.yaml binary", "yolo", "data.yaml", write(YAML, bytes(range(256)))),
    Case("yolo: data.yaml a bomb", "yolo", "data.yaml", write(YAML, "names: &a [*a]\n")),
    described("no names", "names", names=None),
    described("names a number", "names", names=5),
    described("names a text", "names", names="disc"),
    described("names empty", "names", names=[]),
    described("names of lists", "names", names=[["disc"], ["square"]]),
    described("names from 1", "names", names={1: "disc", 2: "square"}),
    described("names by letters", "names", names={"a": "disc", "b": "square"}),
    described("names by letters and numbers", "names", names={0: "disc", "b": "square"}),
    described("a name twice", "names", names=["disc", "disc"]),
    described("no training images", "train", train=None),
    described("no validation images", "val", val=None),
    described("a split of lists", "train", train=["images/train"]),
    described("a split of numbers", "train", train=5),
    described("a split that is not there", "nowhere", train="nowhere"),
    described("a split that climbs", "train", train="../../../etc"),
    described("an absolute split", "train", train="/etc"),
    described("a split with a null byte", "train", train="a\0b"),
    described("a path of lists", "path", path=["."]),
    described("a path with a null byte", "path", path="a\0b"),
    described("a path that climbs", "train", path="../.."),
    described("an unknown format", "format", format="pascal"),
    described("a format of lists", "format", format=["coco"]),
    described("coco without annotations", "annotations", format="coco"),
    described("annotations of a list", "annotations", on="coco", annotations=["train.json"]),
    described("annotations that climb", "annotations", on="coco", annotations={"train": "../x.json", "val": "val.json"}),
    described(
        "annotations that are not there", "none.json", on="coco", annotations={"train": "none.json", "val": "val.json"}
    ),
    described("annotations of numbers", "annotations", on="voc", annotations=5),
    described("instance maps of two classes", "one class", on="instances", names=["a", "b"]),
    described("masks of a list", "masks", on="instances", masks=["masks"]),
    described("masks that climb", "masks", on="instances", masks={"train": "../.."}),
    described("a holdout of 1", "holdout", on="instances", val=None, holdout=1),
    described("a holdout of letters", "holdout", on="instances", val=None, holdout="some"),
    described("a holdout beside val", "holdout", on="instances", holdout=5),
    described("an unknown format of masks", "format", on="instances", format="png"),
]
PICTURES = [
    pictured("a picture cut off", cut(PICTURE)),
    pictured("an empty picture", write(PICTURE, b"")),
    pictured("text for a picture", write(PICTURE, "no picture")),
    pictured("a script for a picture", write(PICTURE, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")),
    pictured("a folder for a picture", folder_instead(PICTURE)),
    pictured("a dangling link for a picture", linked(PICTURE, "nowhere.png")),
    pictured("a link in a circle for a picture", linked(PICTURE, "0.png")),
    pictured("a link out of the data for a picture", linked(PICTURE, "HERE/run.yaml")),
    pictured("a file name twice", copied(PICTURE)),
    pictured(
        "a bomb for a picture", write(PICTURE, b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\xff\xff\xff\0\xff\xff\xff\x08\x02\0\0\0")
    ),
    pictured("a picture of another size", save("data/images/train/1.png", np.zeros((9, 9, 3), np.uint8)), "coco", "1.png"),
    pictured("no picture", remove("data/images/train/1.png"), "coco", "1.png"),
    pictured("a picture cut off", cut("data/JPEGImages/0.jpg"), "voc", "0.jpg"),
    pictured("a picture cut off", cut(PICTURE), "instances"),
    pictured("a picture cut off", cut("data/train/red/0.png"), "pictures"),
    Case("yolo: no pictures", "yolo", "train", lambda here: shutil.rmtree(here / "data/images/train")),
]
LABELS = [
    labelled("letters", "disc 0.5 0.5 0.1 0.1\n"),
    labelled("three numbers", "0 0.5 0.5\n"),
    labelled("six numbers", "0 0.1 0.1 0.2 0.2 0.3\n"),
    labelled("a class beyond", "2 0.5 0.5 0.1 0.1\n"),
    labelled("a negative class", "-1 0.5 0.5 0.1 0.1\n"),
    labelled("half a class", "0.5 0.5 0.5 0.1 0.1\n"),
    labelled("a class that is no number", "nan 0.5 0.5 0.1 0.1\n"),
    labelled("pixels", "0 32 32 10 10\n"),
    labelled("no numbers", "0 nan 0.5 0.1 0.1\n"),
    labelled("endless numbers", "0 inf 0.5 0.1 0.1\n"),
    labelled("huge numbers", f"0 {'9' * 500} 0.5 0.1 0.1\n"),
    labelled("binary", bytes(range(256))),
    labelled("a long line", "0 " + "0.5 " * 100_001 + "\n"),
    Case("yolo: a folder for a label", "yolo", "0.txt", folder_instead(LABEL)),
    Case("yolo: no labels", "yolo", "train", lambda here: shutil.rmtree(here / "data/labels/train")),
]
JSONS = [
    Case("coco: no JSON", "coco", "train.json", write("data/train.json", "{")),
    Case("coco: deep JSON", "coco", "train.json", write("data/train.json", "[" * 100_000)),
    Case("coco: a list", "coco", "train.json", write("data/train.json", "[]")),
    Case("coco: empty", "coco", "train.json", write("data/train.json", "")),
    Case("coco: cut off", "coco", "train.json", cut("data/train.json")),
    Case("coco: an endless number", "coco", "train.json", write("data/train.json", f'{{"images": {"9" * 5000}}}')),
    coco("images a number", "images", "images", 5),
    coco("images of text", "images", "images", "abc"),
    coco("annotations of a mapping", "annotations", "annotations", {"a": 1}),
    coco("categories of numbers", "categories", "categories", [1, 2]),
    coco("an unknown category", "train.json", "categories/0/name", "nobody"),
    coco("a category of lists", "categories", "categories/0/id", [1]),
    coco("a category without name", "categories", "categories/0/name", None),
    coco("an id twice", "images", "images/0/id", 2),
    coco("an id of lists", "id", "images/0/id", [1]),
    coco("a file name that climbs", "file_name", "images/0/file_name", "../../run.yaml"),
    coco("a file name of a drive", "file_name", "images/0/file_name", "C:\\a.png"),
    coco("an absolute file name", "file_name", "images/0/file_name", "/etc/passwd"),
    coco("a file name of numbers", "file_name", "images/0/file_name", 5),
    coco("a file name with a null byte", "file_name", "images/0/file_name", "a\0b.png"),
    coco("a file name of half a letter", "file_name", "images/0/file_name", "\ud800.png"),
    coco("a negative width", "width", "images/0/width", -5),
    coco("a width of letters", "width", "images/0/width", "wide"),
    coco("a huge width", "width", "images/0/width", 10**30),
    coco("an image that is not there", "image_id", "annotations/0/image_id", 99),
    coco("an image of lists", "image_id", "annotations/0/image_id", [1]),
    coco("a category that is not there", "category_id", "annotations/0/category_id", 99),
    coco("three numbers", "bbox", "annotations/0/bbox", [1, 2, 3]),
    coco("a box of letters", "bbox", "annotations/0/bbox", "abcd"),
    coco("a negative box", "bbox", "annotations/0/bbox", [1, 1, -1, 5]),
    coco("an endless box", "bbox", "annotations/0/bbox", [0, 0, float("inf"), 1]),
    coco("a crowd of letters", "iscrowd", "annotations/0/iscrowd", "many"),
    coco("an area of letters", "area", "annotations/0/area", "large"),
    coco("a polygon of two points", "segmentation", "annotations/0/segmentation", [[1, 1, 2, 2]]),
    coco("a polygon of letters", "segmentation", "annotations/0/segmentation", [list("abcdef")]),
    coco("a polygon beyond 32 bits", "segmentation", "annotations/0/segmentation", [[1e12, 1, 2, 2, 3, 3]]),
    coco("runs of another size", "segmentation", "annotations/0/segmentation", {"size": [1, 1], "counts": [1]}),
    coco("runs beyond the picture", "segmentation", "annotations/0/segmentation", {"size": [64, 72], "counts": [0, 2**31]}),
    coco("runs of nonsense", "segmentation", "annotations/0/segmentation", {"size": [64, 72], "counts": "~~"}),
]
XMLS = [
    noted("no XML", "0.xml", "no XML"),
    noted("empty", "0.xml", ""),
    noted("cut off", "0.xml", boxed("1 1 9 9")[:50]),
    noted("a document type", "DOCTYPE", '<!DOCTYPE a [<!ENTITY x "y">]><annotation>&x;</annotation>'),
    noted("an unknown encoding", "0.xml", '<?xml version="1.0" encoding="nonsense"?><annotation/>'),
    noted("an encoding of many bytes", "0.xml", '<?xml version="1.0" encoding="utf-7"?><annotation/>'),
    noted("an unknown class", "nobody", boxed("1 1 9 9", "nobody")),
    noted("three sides", "bndbox", boxed("1 1 9")),
    noted("sides of letters", "bndbox", boxed("a b c d")),
    noted("no numbers", "0.xml", boxed("nan 1 9 9")),
    noted("a box from right to left", "0.xml", boxed("9 1 1 9")),
    noted("another size", "size", boxed("1 1 9 9", size="99")),
    Case("voc: a list of names that climbs", "voc", "../0", write("data/train.txt", "../0\n")),
    Case("voc: a list of names that are not there", "voc", "nobody", write("data/train.txt", "nobody\n")),
    Case("voc: an empty list of names", "voc", "train", write("data/train.txt", "")),
]
MASKS = [
    Case("instances: no mask", "instances", "0.png", remove("data/masks/train/0.png")),
    Case("instances: a mask cut off", "instances", "0.png", cut("data/masks/train/0.png")),
    Case(
        "instances: a mask of colours",
        "instances",
        "0.png",
        save("data/masks/train/0.png", np.zeros((48, 64, 3), np.uint8)),
    ),
    Case(
        "instances: a mask of another size",
        "instances",
        "0.png",
        save("data/masks/train/0.png", np.zeros((9, 9), np.uint8)),
    ),
    Case("instances: a folder for a mask", "instances", "0.png", folder_instead("data/masks/train/0.png")),
    Case(
        "instances: too many objects",
        "instances",
        "0.png",
        save("data/masks/train/0.png", np.arange(40_000, dtype=np.uint16).reshape(200, 200)),
    ),
    Case(
        "instances: a mask of floats",
        "instances",
        "0.png",
        save("data/masks/train/0.png", np.zeros((48, 64), np.float32), format="tiff"),
    ),
    Case(
        "semantic: an index of no class",
        "semantic",
        "0.png",
        save("data/masks/train/0.png", np.full((48, 64), 7, np.uint8)),
    ),
]
FOLDERS = [
    Case("pictures: no such folder", "pictures", "nowhere", arguments=("data=nowhere",)),
    Case("pictures: a file", "pictures", "run.yaml", arguments=("data=HERE/run.yaml",)),
    Case("pictures: no test", "pictures", "test", lambda here: shutil.rmtree(here / "data/test")),
    Case(
        "pictures: a class of the test alone",
        "pictures",
        "pink",
        lambda here: os.rename(here / "data/test/red", here / "data/test/pink"),
    ),
    Case(
        "pictures: one of a class",
        "pictures",
        "red",
        lambda here: [remove(f"data/train/red/{n}.png")(here) for n in (1, 2, 3)],
    ),
    zipped("an empty zip", "train", {}),
    zipped("a zip that climbs", "../up.png", {"red/0.png": png(), "../up.png": png()}),
    zipped("an absolute zip", "/up.png", {"red/0.png": png(), "/up.png": png()}),
    zipped("a zip of deeper folders", "a/b/c.png", {"a/b/c.png": png()}),
    zipped(
        "a zip of broken pictures",
        "green/",
        {f"{c}/{n}.png": png() if c == "blue" else b"no" for c in ("red", "green", "blue") for n in range(3)},
    ),
    Case("pictures: no zip", "pictures", "train.zip", write("data/train.zip", "no zip")),
]
TABLES = [
    Case("sentences: no file", "sentences", "train.tsv", remove("data/train.tsv")),
    Case("sentences: a folder", "sentences", "train.tsv", folder_instead("data/train.tsv")),
    table("empty", ""),
    table("a header alone", "sentence\tlabel\n"),
    table("other columns", "text\tclass\na\tb\n"),
    table("a line without label", "sentence\tlabel\na\n"),
    table("a line without sentence", "sentence\tlabel\n\tgood\n"),
    table("a line of three", "sentence\tlabel\na\tgood\textra\n"),
    table("binary", bytes(range(256))),
    table("a huge field", "sentence\tlabel\n" + "x" * 200_000 + "\tgood\n"),
    table("labels of the test alone", "sentence\tlabel\na\tgood\nb\tgood\n", "bad"),
]
CASES = [*DESCRIPTIONS, *PICTURES, *LABELS, *JSONS, *XMLS, *MASKS, *FOLDERS, *TABLES]

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from detkd.data.detection import DetectionDataset, check_dataset
from detkd.errors import DataError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
  <bndbox><xmin>3</xmin><ymin>2</ymin><xmax>{right}</xmax><ymax>4</ymax></bndbox></object>"""
SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"


def annotation(*objects: str, size: str = SIZE) -> str:
    return f"<annotation><filename>../../etc/passwd</filename>{size}{''.join(objects)}</annotation>"


def an_object(name: str = "ring", difficult: int = 0, right: object = 6) -> str:
    return OBJECT.format(name=name, difficult=difficult, right=right)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.new("RGB", (20, 10)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
    (tmp_path / "Annotations" / "a.xml").write_text(annotation(an_object(), an_object("disc", difficult=1)))
    (tmp_path / "ImageSets" / "Main" / "train.txt").write_text("a\nb\n")
    (tmp_path / "data.yaml").write_text(
        "path: .\nformat: voc\ntrain: ImageSets/Main/train.txt\nval: JPEGImages\nnames: [disc, ring]\n"
    )
    return tmp_path / "data.yaml"


def test_reads_lists_and_folders_of_images(data: Path) -> None:
    dataset = DetectionDataset.load(data)
    check_dataset(dataset, ("train", "val"))
    first, second = dataset.annotated("train")
    assert [len(dataset.images(split)) for split in ("train", "val")] == [2, 3]
    assert first.boxes.tolist() == [[2, 1, 6, 4], [2, 1, 6, 4]]  # the third to the sixth pixel across, counted from 1
    assert first.classes.tolist() == [1, 0]
    assert first.crowd.tolist() == [False, True]
    assert len(second.boxes) == 0
    truth = dataset.coco("train")
    assert [a["iscrowd"] for a in truth["annotations"]] == [0, 1]
    assert truth["annotations"][0]["bbox"] == [2, 1, 4, 3]


BOMB = (
    '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;&x;&x;"><!ENTITY z "&y;&y;&y;&y;&y;&y;">]>'
    "<annotation>&z;</annotation>"
)
FILE = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (BOMB, "without a document type"),
        (FILE, "without a document type"),
        (BOMB.encode("utf-16"), "without a document type"),
        ("<annotation>", "expected XML"),
        ("", "expected XML"),
        (b"\xff\xfe\x00", "expected XML"),
        (annotation(an_object("cat")), "class among"),
        (annotation(an_object(right="nan")), "top left to bottom right"),
        (annotation(an_object(right="x")), "`bndbox` to hold"),
        (annotation(an_object(right=1)), "top left to bottom right"),
        (annotation(size=SIZE.replace("20", "21")), "expected the size of a.jpg, 20x10, but got 21x10"),
    ],
)
def test_a_fault_is_one_line(data: Path, content: str | bytes, reason: str) -> None:
    path = data.parent / "Annotations" / "a.xml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=rf"a\.xml: .*{reason}") as error:
        check_dataset(DetectionDataset.load(data), ("train",))
    assert "\n" not in str(error.value)


def test_a_list_cannot_lead_out_of_the_folder(data: Path) -> None:
    (data.parent / "ImageSets" / "Main" / "train.txt").write_text("../../a\n")
    with pytest.raises(DataError, match="without folder"):
        DetectionDataset.load(data).images("train")

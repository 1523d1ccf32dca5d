"""Command lines that are wrong."""

from __future__ import annotations

import json

from tests.corpus.case import Case, write

RUN = ("--config", "HERE/run.yaml")
TRUTH = {
    "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 10}],
    "categories": [{"id": 1, "name": "disc"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 25, "iscrowd": 0}],
}
FOUND = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 0.5}


def call(what: str, says: str, command: str, *arguments: str, on: str = "yolo") -> Case:
    """A call without a configuration of the case's own."""
    return Case(f"call: {what}", on, says, arguments=arguments, command=command)


def compared(what: str, says: str, recipes: str, *arguments: str) -> Case:
    """A comparison of recipes of its own."""
    given = (*RUN, "--recipes", "HERE/recipes.yaml", *arguments)
    return Case(f"call: {what}", "yolo", says, write("recipes.yaml", recipes), given, "compare")


def scored(what: str, says: str, results: object, truth: object = TRUTH, kind: str = "bbox") -> Case:
    """Detections against ground truth, one of them wrong."""

    def change(here):  # type: ignore[no-untyped-def]
        for name, content in (("truth.json", truth), ("found.json", results)):
            write(name, content if isinstance(content, str) else json.dumps(content))(here)

    arguments = ("--detections", "HERE/found.json", "--ground-truth", "HERE/truth.json", "--iou-type", kind)
    return Case(f"scores: {what}", "yolo", says, change, arguments, "evaluate")


def truth(**changes: object) -> dict[str, object]:
    """Ground truth whose lists are others."""
    return {**TRUTH, **changes}


def annotation(**changes: object) -> dict[str, object]:
    """Ground truth with another annotation."""
    return truth(annotations=[{**TRUTH["annotations"][0], **changes}])  # type: ignore[dict-item]


CALLS = [
    call("no configuration", "--config", "train-det"),
    call("an unknown option", "--nonsense", "train-det", *RUN, "--nonsense"),
    call("--config without a value", "--config", "train-det", "--config"),
    call("a run to resume that is not there", "run", "train-det", *RUN, "--resume"),
    call("seeds of letters", "--seeds", "compare", *RUN, "--seeds", "0,x"),
    call("no seeds", "seeds", "compare", *RUN, "--seeds", ","),
    call("a seed twice", "seeds", "compare", *RUN, "--seeds", "1,1"),
    call("a negative seed", "train.seed", "compare", *RUN, "--seeds=-1"),
    call("an unknown recipe", "nobody", "compare", *RUN, "--only", "nobody"),
    call("jobs of letters", "--jobs", "compare", *RUN, "--jobs", "many"),
    compared("a split that is not evaluated", "nonsense", "alone: []\n", "--split", "nonsense"),
    compared("recipes of a list", "recipes.yaml", "- alone\n"),
    compared("no recipes", "recipes.yaml", "{}\n"),
    compared("a recipe of a text", "alone", "alone: x=1\n"),
    compared("a recipe of numbers", "alone", "alone: [1]\n"),
    compared("a recipe that climbs", "../up", "../up: []\n"),
    compared("a recipe of an unknown key", "nonsense", "alone: [nonsense=1]\n"),
    compared("a recipe of a teacher that is not there", "{teacher}", "alone: ['student.weights={teacher}']\n"),
    call("recipes that are not there", "none.yaml", "compare", *RUN, "--recipes", "none.yaml"),
    call("no cache to make", "distill.teacher.cache", "cache-teacher", *RUN),
    call("nothing to evaluate", "--weights", "evaluate"),
    call("weights without data", "--data", "evaluate", "--weights", "HERE/run.yaml"),
    call("no such weights", "none.pt", "evaluate", "--weights", "none.pt", "--data", "HERE/data/data.yaml"),
    call("a size of letters", "--imgsz", "evaluate", "--weights", "a.pt", "--data", "b", "--imgsz", "big"),
    call("a size of 0", "--imgsz", "evaluate", "--weights", "a.pt", "--data", "b", "--imgsz", "0"),
    call("an unknown kind of overlap", "--iou-type", "evaluate", "--iou-type", "points"),
    call("a data set without a folder", "folder", "make-synthetic"),
    call("a negative count of pictures", "train", "make-synthetic", "HERE/new", "--train=-1"),
    call("pictures of no size", "`size`", "make-synthetic", "HERE/new", "--size", "0"),
    call("pictures of an endless size", "`size`", "make-synthetic", "HERE/new", "--size", "100000000"),
    call("a data set in place of a file", "run.yaml", "make-synthetic", "HERE/run.yaml"),
]
SCORES = [
    scored("no JSON", "found.json", "{"),
    scored("deep JSON", "found.json", "[" * 100_000),
    scored("a mapping", "found.json", {"a": 1}),
    scored("a list of numbers", "found.json", [1, 2]),
    scored("no score", "score", [{key: value for key, value in FOUND.items() if key != "score"}]),
    scored("a score of letters", "score", [{**FOUND, "score": "high"}]),
    scored("a score that is no number", "score", [{**FOUND, "score": float("nan")}]),
    scored("an unknown image", "image_id", [{**FOUND, "image_id": 9}]),
    scored("an image that is a list", "image_id", [{**FOUND, "image_id": [1]}]),
    scored("an unknown category", "category_id", [{**FOUND, "category_id": 9}]),
    scored("three numbers", "bbox", [{**FOUND, "bbox": [1, 2, 3]}]),
    scored("a box of letters", "bbox", [{**FOUND, "bbox": list("abcd")}]),
    scored("an endless box", "bbox", [{**FOUND, "bbox": [0, 0, float("inf"), 1]}]),
    scored("a negative box", "bbox", [{**FOUND, "bbox": [0, 0, -1, 1]}]),
    scored("boxes of some", "bbox", [FOUND, {key: value for key, value in FOUND.items() if key != "bbox"}]),
    scored("masks of another size", "segmentation", [{**FOUND, "segmentation": {"size": [9, 9], "counts": "1"}}]),
    scored("masks of nonsense", "segmentation", [{**FOUND, "segmentation": {"size": [10, 10], "counts": "~~~"}}]),
    scored(
        "masks beyond the picture", "segmentation", [{**FOUND, "segmentation": {"size": [10, 10], "counts": [0, 2**31]}}]
    ),
    scored("no masks", "segmentation", [FOUND], kind="segm"),
    scored("no truth", "truth.json", [FOUND], "x"),
    scored("truth of a list", "truth.json", [FOUND], []),
    scored("truth without categories", "categories", [FOUND], {"images": [], "annotations": []}),
    scored("truth with a category twice", "categories", [FOUND], truth(categories=[{"id": 1, "name": "a"}] * 2)),
    scored("truth with a category of lists", "categories", [FOUND], truth(categories=[{"id": [1], "name": "a"}])),
    scored("truth with an image of lists", "id", [FOUND], truth(images=[{**TRUTH["images"][0], "id": [1]}])),
    scored("truth without sizes", "width", [FOUND], truth(images=[{"id": 1, "file_name": "a.png"}])),
    scored("truth with a box of letters", "bbox", [FOUND], annotation(bbox="abcd")),
    scored("truth with an area of letters", "area", [FOUND], annotation(area="large")),
    scored("truth with a crowd of letters", "iscrowd", [FOUND], annotation(iscrowd="many")),
    scored(
        "truth with a mask of nonsense", "segmentation", [FOUND], annotation(segmentation={"size": [10, 10], "counts": [7]})
    ),
]
CASES = [*CALLS, *SCORES]

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from detkd.config import dump_config, load_config, parse_config
from detkd.errors import ConfigError
from detkd.pixel_terms import find_pixel_place
from detkd.schedules import Schedule


@pytest.fixture
def recipe(repository: Path) -> Path:
    return repository / "configs" / "yolo" / "yolov5n-femto_from_yolov5n.yaml"


def test_overrides_are_yaml_and_the_resolved_file_reads_back(recipe: Path, tmp_path: Path) -> None:
    given = ["data=d.yaml", "distill.teacher.weights=t.pt", "train.seed=3", "distill.terms={bckd: {weight: 0.7}, ld: {}}"]
    config = load_config(recipe, given)
    assert config.train.seed == 3
    terms = {term.name: term for term in config.distill.losses()}
    assert terms["bckd"].weight == 0.7
    assert terms["ld"].weight is None
    assert terms["ld"].arguments == {"temperature": 10.0, "positive_gain": 0.25, "region_gain": 0.25}
    (tmp_path / "again.yaml").write_text(dump_config(config))
    assert load_config(tmp_path / "again.yaml") == config
    assert load_config(recipe, ["data=d.yaml", "distill=null"]).distill is None


def test_a_term_is_left_out_by_null_but_one_must_stay(recipe: Path) -> None:
    config = load_config(recipe, ["data=d.yaml", "distill.terms.pkd={}", "distill.terms.bckd=null"])
    assert [term.name for term in config.distill.losses()] == ["pkd"]
    with pytest.raises(ConfigError, match="distill.terms: expected at least one loss"):
        load_config(recipe, ["data=d.yaml", "distill.terms.bckd=null"])


def test_a_shipped_configuration_is_found_from_everywhere_but_a_file_of_ones_own_first(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("configs", "yolo", recipe.name)
    assert load_config(name, ["data=d.yaml"]) == load_config(recipe, ["data=d.yaml"])
    with pytest.raises(ConfigError, match="none at configs/none.yaml"):
        load_config(Path("configs", "none.yaml"))
    name.parent.mkdir(parents=True)
    name.write_text(recipe.read_text().replace("yolov5n-femto", "mine"))
    assert load_config(name, ["data=d.yaml"]).name == "mine"


@pytest.mark.parametrize(
    ("model", "terms"),
    [
        ("ssdlite320_mobilenet_v3_large", {"soft_kl"}),
        ("retinanet_resnet50_fpn", {"bckd"}),
        ("maskrcnn_resnet50_fpn", {"pkd", "dkd", "bounded_box"}),
    ],
)
def test_the_terms_that_are_recommended_for_a_student(model: str, terms: set[str]) -> None:
    tree = {
        "name": "a",
        "data": "d.yaml",
        "student": {"model": model},
        "distill": {"teacher": {"weights": "t.safetensors"}},
    }
    config = parse_config(tree)
    assert config.distill is not None
    assert set(config.distill.terms) == terms


def test_every_shipped_configuration_is_valid(repository: Path) -> None:
    files = sorted(set((repository / "configs").rglob("*.yaml")) - set((repository / "configs" / "recipes").iterdir()))
    tasks = {file.parent.name: load_config(file, ["data=d.yaml"]).task for file in files}
    detect, classify = (
        dict.fromkeys(("demo", "yolo", "faster_rcnn"), "detect"),
        dict.fromkeys(("classification", "text"), "classify"),
    )
    assert tasks == {**detect, **classify, "unet": "segment"}


def test_the_shipped_unets_learn_by_what_a_segmenter_offers(repository: Path) -> None:
    names = []
    for file in sorted((repository / "configs" / "unet").glob("*.yaml")):
        config = load_config(file, ["data=d.yaml"])
        assert config.student.family == "unet"
        names.append(config.distill and sorted(config.distill.terms))
        for name in names[-1] or ():
            find_pixel_place(name)
    assert sorted(name for name in names if name) == [["pixel_cwd", "pixel_kl"], *[["pixel_kl", "pkd"]] * 2]


STUDENTS = {
    "yolo": "yolo/yolov5n-femto_from_yolov5n",
    "faster_rcnn": "faster_rcnn/mobilenet_small_from_yolov5n",
    "unet": "unet/unet_from_unet",
    "classification": "classification/cnn_from_resnet18",
    "soft_kl": "classification/cnn_from_resnet18",
    "text": "text/transformer_from_bert",
    "cheaper": "classification/cnn_from_resnet18",
}


def test_every_shipped_recipe_is_valid(repository: Path) -> None:
    given = ["data=d.yaml", "distill.teacher.weights=t.pt"]
    files = sorted((repository / "configs" / "recipes").glob("*.yaml"))
    assert {file.stem for file in files} == set(STUDENTS)
    for file in files:
        student = repository / "configs" / f"{STUDENTS[file.stem]}.yaml"
        for name, changes in yaml.safe_load(file.read_text()).items():
            config = load_config(student, [*given, *(change.replace("{teacher}", "t.pt") for change in changes)])
            assert name.startswith("alone") or config.distill or "distill_model" in config.trainer, name
            for term in config.distill.terms if config.distill and file.stem == "unet" else ():
                find_pixel_place(term)


def test_the_kind_of_run_follows_the_student() -> None:
    tree = {"name": "x", "data": "d", "distill": None}
    for model in ("cnn", "resnet18", "bert", "lstm"):
        config = parse_config({**tree, "student": {"model": model}})
        assert (config.task, config.augment) == ("classify", ())
    assert parse_config({**tree, "student": {"model": "unet_resnet18"}}).task == "segment"
    assert parse_config({**tree, "student": {"model": "yolov5n.yaml"}}).task == "detect"
    with pytest.raises(ConfigError, match=r"classify: unknown key"):
        parse_config({**tree, "student": {"model": "unet"}, "classify": {}})


def test_a_checkpoint_is_not_told_again_how_it_was_built() -> None:
    def student(**spec: object) -> dict[str, object]:
        return {"name": "x", "data": "d", "student": spec, "distill": None}

    for file, key, value in (("s.pt", "width", 0.5), ("s.safetensors", "width", 1), ("s.pt", "depth", 0.5)):
        with pytest.raises(ConfigError, match=f"`{key}` beside a checkpoint alone.*name the `model` that the weights fill"):
            parse_config(student(weights=file, **{key: value}))
        with pytest.raises(ConfigError, match=f"`{key}` beside a checkpoint alone"):
            parse_config(student(model=file, **{key: value}))
    parse_config(student(model="yolov5n.yaml", weights="s.pt", width=0.5))


def test_an_average_takes_no_model_beside_it() -> None:
    def run(student: str, **teacher: object) -> dict[str, object]:
        return {"name": "x", "data": "d", "student": {"model": student}, "distill": {"teacher": {"ema": 0.9, **teacher}}}

    assert parse_config(run("cnn")).distill is not None
    with pytest.raises(ConfigError, match="weights beside `ema`"):
        parse_config(run("cnn", weights="t.safetensors"))
    assert parse_config(run("yolov5n.yaml")).distill is not None


@pytest.mark.parametrize("scale", [0, 1.5, 3])
def test_a_scale_at_which_no_strides_meet_is_refused(recipe: Path, scale: float) -> None:
    assert load_config(recipe, ["data=d.yaml", "distill.teacher.scale=2"]).distill.teacher.scale == 2
    with pytest.raises(ConfigError, match=r"distill\.teacher\.scale: expected one of"):
        load_config(recipe, ["data=d.yaml", f"distill.teacher.scale={scale}"])


def test_a_device_may_be_the_bare_number_of_a_gpu(recipe: Path) -> None:
    assert load_config(recipe, ["data=d.yaml", "train.device=0"]).train.device == "0"


def test_several_teachers_and_schedules_are_read_and_faults_named(recipe: Path) -> None:
    several = [
        "data=d.yaml",
        "distill.teacher=null",
        "distill.teachers=[{weights: a.pt, share: 3}, {weights: b.pt, scale: 2}]",
    ]
    config = load_config(recipe, [*several, "distill.ensemble=ca_mkd", "distill.terms.bckd={schedule: {warmup: 2}}"])
    assert [(str(spec.weights), spec.share, spec.scale) for spec in config.distill.all_teachers] == [
        ("a.pt", 3, 1),
        ("b.pt", 1, 2),
    ]
    assert config.distill.losses()[0].schedule == Schedule(warmup=2)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    for change, fault in (
        ("distill.teacher={}", r"^distill: expected either `teacher` or `teachers`\.$"),
        ("distill.teachers=[{weights: a.pt}]", r"^distill: expected two `teachers` or more where `ensemble` is ca_mkd\.$"),
        ("distill.teachers.0=3", "distill.teachers.0: expected `teachers` to be a section"),
        ("distill.terms.bckd.schedule.step=3", r"distill\.terms\.bckd\.schedule\.step: unknown key; got 3"),
        ("distill.terms.bckd.schedule={end: 2}", "distill.terms.bckd.schedule: expected a schedule with .* end=2"),
    ):
        with pytest.raises(ConfigError, match=fault):
            load_config(recipe, [*several, "distill.ensemble=ca_mkd", change])


def test_all_faults_are_reported_at_once(recipe: Path) -> None:
    faults = [
        "train.epoch=3",
        "train.batch=x",
        "distill.terms.bckd.gain=1",
        "distill.terms.nope={}",
        "distill.balance=a",
    ]
    with pytest.raises(ConfigError) as error:
        load_config(recipe, faults)
    lines = str(error.value).splitlines()
    for key in ("data", "train.epoch", "train.batch", "distill.terms.bckd.gain", "distill.terms", "distill.balance"):
        assert any(line.startswith(f"{key}:") for line in lines), (key, lines)


@pytest.mark.parametrize("text", [None, "a: [", "- 1"])
def test_an_unreadable_file_is_one_line(text: str | None, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(path)
    assert "\n" not in str(error.value)
    assert "c.yaml" in str(error.value)


LIGHTNING = {"name": "run", "data": "d.yaml", "student": {"model": "fasterrcnn_resnet50_fpn"}, "distill": None}


@pytest.mark.parametrize(
    ("student", "family"),
    [
        ({"model": "yolov5n.yaml"}, "yolo"),
        ({"model": "yolov5n.yaml", "weights": "a.safetensors"}, "yolo"),
        ({"weights": "a.pt"}, "yolo"),
        ({"weights": "a.safetensors"}, "torchvision"),
        ({"model": "fasterrcnn_resnet50_fpn"}, "torchvision"),
        ({"model": "ssdlite320_mobilenet_v3_large", "weights": "a.pt"}, "torchvision"),
    ],
)
def test_the_family_follows_from_the_student(student: dict[str, str], family: str) -> None:
    config = parse_config({**LIGHTNING, "student": student})
    assert config.family == family
    assert (config.optim is None) == (config.augment is None) == (config.loading is None) == (family == "yolo")
    assert parse_config(yaml.safe_load(dump_config(config))) == config


@pytest.mark.parametrize(
    ("model", "key", "value", "family"),
    [
        ("yolov5n.yaml", "boundary", False, "yolo"),
        ("yolov5n.yaml", "proposals", {"pre_nms": 8, "post_nms": 8, "sampled": 4}, "yolo"),
        ("retinanet_resnet50_fpn", "class_weights", {"background": 0.1}, "torchvision"),
        ("unet", "smoothing", 0.1, "unet"),
        ("resnet18", "boundary", True, "classifier"),
    ],
)
def test_what_a_models_family_has_not_is_refused(model: str, key: str, value: object, family: str) -> None:
    with pytest.raises(ConfigError, match=rf"student: .* family {family} to be given no `{key}`, which is"):
        parse_config({**LIGHTNING, "student": {"model": model, key: value}})


def test_sections_of_another_engine_are_refused() -> None:
    for section in ({"optim": {"lr": 0.1}}, {"augment": []}, {"loading": {}}):
        with pytest.raises(
            ConfigError, match=rf"configuration: expected `{next(iter(section))}` to be left out for a YOLO"
        ):
            parse_config({**LIGHTNING, "student": {"model": "yolov5n.yaml"}, **section})
    given = {
        "optim": {"lr": 0.1, "ema": 0.9},
        "augment": [{"VerticalFlip": None}],
        "loading": {"sampling": "repeat_factor"},
    }
    config = parse_config({**LIGHTNING, **given})
    assert config.optim.lr == 0.1
    assert config.augment == ({"VerticalFlip": None},)
    assert parse_config(yaml.safe_load(dump_config(config))) == config
    with pytest.raises(ConfigError, match=r"optim\.schedule: .*'poly'"):
        parse_config({**LIGHTNING, "optim": {"schedule": "poly"}})


def test_an_override_of_an_aliased_section_changes_one_place(tmp_path: Path) -> None:
    text = "name: a\ndata: d.yaml\nstudent: &m {model: yolov5n.yaml, width: 0.5}\ndistill: {teacher: *m}\n"
    (tmp_path / "run.yaml").write_text(text)
    config = load_config(tmp_path / "run.yaml", ["student.width=0.1"])
    assert config.distill is not None
    assert config.distill.teacher is not None
    assert (config.student.width, config.distill.teacher.width) == (0.1, 0.5)

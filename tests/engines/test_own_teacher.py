"""Students that need no other teacher: their deepest head teaches the inner layers, or an average teaches them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from detkd.config import load_config
from detkd.engines.compare import plan_comparison
from detkd.engines.run import run_config
from detkd.errors import AdapterError, ConfigError
from detkd.models.classifier_files import load_model
from detkd.ultralytics import distill_trainer
from tests.engines.classes import configure_classes, configure_text, write_pictures, write_sentences
from tests.engines.conftest import configure
from tests.engines.runs import checkpoint_of, last, results, same
from tests.engines.segmented import configure_unet
from tests.engines.test_distill_trainer import train, train_first_epoch

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).resolve().parents[2]
SHALLOW = {"terms": {"byot": {}}}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"), {"train": 14, "test": 4})


def test_shallow_heads_learn_from_the_deepest_and_are_dropped(pictures: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"output": tmp_path, "train": {"epochs": 4, "imgsz": 32, "batch": 8}}
    labels = {"terms": {"byot": {"alpha": 0.0, "hint": 0.0}}}
    folder = run_config(configure_classes(pictures, distill=labels, **changes))
    alone = run_config(configure_classes(pictures, name="alone", **changes))
    found = results(folder)
    values = [row["train/byot"] for row in found["history"]]
    assert values[-1] < 0.3 * values[0]
    assert found["teachers"] == []
    assert last(folder).keys() == last(alone).keys()
    assert not same(last(folder), last(alone))
    heads = {name.split(".")[3] for name in checkpoint_of(folder)["distiller"] if name.startswith("own_terms.losses.byot.")}
    assert heads == {"0", "1"}  # of three levels
    load_model(folder / "student.safetensors")(torch.rand(1, 3, 32, 32))


def test_a_teacher_and_the_student_itself_teach_together(pictures: Path, tmp_path: Path) -> None:
    teacher = run_config(configure_classes(pictures, output=tmp_path, name="teacher"))
    distill = {"teacher": {"weights": str(teacher / "student.safetensors")}, "terms": {"soft_kl": {}, "byot": {}}}
    folder = run_config(configure_classes(pictures, output=tmp_path, distill=distill))
    assert all(results(folder)["distill_weights"][0][name] > 0 for name in ("soft_kl", "byot"))


def test_only_classifiers_of_pictures_have_shallow_heads(discs: Path, tmp_path: Path) -> None:
    text = write_sentences(tmp_path, {"train": 8, "dev": 4, "test": 4})
    for config in (
        configure_text(text, output=tmp_path, distill=SHALLOW),
        configure_unet(discs, output=tmp_path, distill=SHALLOW),
    ):
        with pytest.raises(AdapterError, match="`byot`"):
            run_config(config)


def test_a_teacher_is_given_where_a_term_needs_one_and_nowhere_else(pictures: Path) -> None:
    with pytest.raises(ConfigError, match="either `teacher` or `teachers`"):
        configure_classes(pictures, distill={"terms": {"soft_kl": {}, "byot": {}}})
    with pytest.raises(ConfigError, match="no `teacher` beside"):
        configure_classes(pictures, distill={"teacher": {"weights": "t.safetensors"}, **SHALLOW})
    with pytest.raises(ConfigError, match="`inherit` from"):
        configure_classes(pictures, distill={**SHALLOW, "inherit": True})


def test_the_shipped_recipes_are_sound(pictures: Path) -> None:
    config = ROOT / "configs/classification/cnn_from_resnet18.yaml"
    overrides = [f"data={pictures}", "distill.teacher.weights=t.safetensors"]
    planned = plan_comparison(config, ROOT / "configs/recipes/classification.yaml", seeds=[0], overrides=overrides)
    own, both = (planned.runs[name][0].distill for name in ("byot", "soft_kl-byot"))
    assert own is not None
    assert own.all_teachers == ()
    assert both is not None
    assert len(both.all_teachers) == 1
    itself = load_config(ROOT / "configs/classification/cnn_of_itself.yaml", [f"data={pictures}"])
    assert itself.distill == own


def test_an_average_of_a_unet_teaches_it(discs: Path, tmp_path: Path) -> None:
    distill = {"teacher": {"ema": 0.9}, "terms": {"pixel_kl": {}, "pkd": {}}}
    folder = run_config(configure_unet(discs, output=tmp_path, distill=distill))
    found = results(folder)
    assert all(found["history"][-1][f"train/{name}"] > 0 for name in ("pixel_kl", "pkd"))
    steps = checkpoint_of(folder)["callbacks"]["Averaging teacher 1"]["steps"]
    assert steps == checkpoint_of(folder)["global_step"] > 0
    assert found["teachers"][0]["metrics"]["val"]["mIoU"] >= 0


def test_an_average_of_a_yolo_teaches_it(data: Path, tmp_path: Path) -> None:
    distill = {"teacher": {"ema": 0.9}, "terms": {"bckd": {}, "pkd": {}}}
    folder = run_config(configure(data, output=tmp_path, distill=distill))
    found = results(folder)
    assert all(found["history"][-1][f"train/{name}"] > 0 for name in ("bckd", "pkd"))
    assert found["teachers"][0]["parameters"] == found["student"]["parameters"]


def test_an_average_of_a_yolo_goes_on_where_it_stopped(resolved: Path, tmp_path: Path) -> None:
    kind = distill_trainer({"ema": 0.5}, terms={"pkd": {}})
    again = train_first_epoch(kind, resolved, tmp_path, "yolo11n", epochs=2)
    (file,) = (tmp_path / "run" / "weights").glob("distiller-*.pt")
    (state,) = torch.load(file, weights_only=True)["averages"]
    assert state["steps"] == 1
    begun: list[dict[str, torch.Tensor]] = []

    def look(trainer: Any) -> None:
        begun.append({name: value.clone() for name, value in trainer.averages[0].state_dict()["average"].items()})

    again.add_callback("on_train_epoch_start", look)
    again.train(resume=True, trainer=kind)
    assert same(begun[0], state["average"])
    assert again.trainer.averages[0].steps == 2
    average, student = again.trainer.averages[0].model, again.trainer.model
    assert any(not torch.equal(a, b) for a, b in zip(average.parameters(), student.parameters(), strict=True))
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_the_first_step_of_an_average_forgets_where_it_began(resolved: Path, tmp_path: Path) -> None:
    trainer = train(distill_trainer({"ema": 0.99}, terms={"pkd": {}}), resolved, tmp_path)
    pairs = zip(trainer.averages[0].model.parameters(), trainer.model.parameters(), strict=True)
    assert all(torch.equal(average, own) for average, own in pairs)

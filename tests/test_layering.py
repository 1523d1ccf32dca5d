"""The direction of imports, read from the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

# Each part may import itself, errors, types, files, and the parts named here.
ALLOWED = {
    "errors": set(),
    "types": set(),
    "trees": {"errors"},
    "shipped": set(),
    "files": {"errors"},
    "cli": {"errors", "memory"},
    "benchmarks": {"memory", "ops"},
    "commands": {
        "benchmarks",
        "cli",
        "config",
        "data",
        "doctor",
        "engines",
        "errors",
        "evaluation",
        "export",
        "files",
        "model_config",
        "models",
        "report",
        "shipped",
        "trees",
    },
    "__main__": {"cli", "commands"},
    "ops": {"errors", "types"},
    "boxes": {"errors"},
    "memory": set(),
    "processes": {"errors"},
    "concatenations": set(),
    "channels": {"concatenations"},
    "inherit": {"channels", "errors"},
    "schedules": {"errors"},
    "losses": {"boxes", "ops", "errors", "types"},
    "hooks": {"errors"},
    "weights": {"errors"},
    "modes": set(),
    "seeds": set(),
    "adapters": {"hooks", "modes", "errors", "types", "weights"},
    "aligners": set(),
    "agreeing": set(),
    "balance": {"agreeing", "errors"},
    "distances": {"agreeing"},
    "matching": {"errors"},
    "meta_balance": {"agreeing", "balance"},
    "pairing": {"adapters", "matching", "errors", "types"},
    "rendering": {"types"},
    "pixel_pairing": {
        "adapters",
        "detections",
        "matching",
        "pairing",
        "rendering",
        "second_stage",
        "errors",
        "types",
    },
    "vocabulary": {"boxes", "types"},
    "detections": {"types"},
    "teachers": {"adapters", "boxes", "errors", "files", "trees", "types", "vocabulary"},
    "places": {"adapters", "losses", "pairing", "vocabulary", "errors"},
    "second_stage": {"adapters", "types"},
    "terms": {"adapters", "aligners", "losses", "schedules"},
    "teacher_terms": {
        "adapters",
        "aligners",
        "detections",
        "losses",
        "pairing",
        "places",
        "second_stage",
        "teachers",
        "terms",
        "vocabulary",
        "errors",
        "types",
    },
    "pixel_terms": {
        "adapters",
        "losses",
        "matching",
        "pixel_pairing",
        "places",
        "teachers",
        "terms",
        "vocabulary",
        "errors",
        "types",
    },
    "class_terms": {
        "adapters",
        "losses",
        "matching",
        "places",
        "teachers",
        "terms",
        "vocabulary",
        "errors",
        "types",
    },
    "kinds": {"adapters", "class_terms", "pixel_pairing", "pixel_terms", "teacher_terms", "teachers", "terms"},
    "distiller": {
        "adapters",
        "balance",
        "distances",
        "kinds",
        "losses",
        "meta_balance",
        "modes",
        "teachers",
        "terms",
        "errors",
        "types",
    },
    "model_config": {"teachers", "weights"},
    "segmentation_config": {"evaluation"},
    "models": {"adapters", "config", "model_config", "errors", "files", "types", "weights"},
    "lightning_config": set(),
    "classification_config": set(),
    "config": {
        "balance",
        "classification_config",
        "errors",
        "lightning_config",
        "losses",
        "model_config",
        "schedules",
        "segmentation_config",
        "shipped",
        "terms",
        "teachers",
        "trees",
    },
    "data": {"errors", "files", "seeds", "trees", "types"},
    "evaluation": {"errors", "data", "modes", "trees", "types"},
    "engines": {
        "adapters",
        "config",
        "data",
        "distiller",
        "errors",
        "evaluation",
        "files",
        "inherit",
        "kinds",
        "lightning_config",
        "matching",
        "memory",
        "modes",
        "model_config",
        "models",
        "processes",
        "report",
        "seeds",
        "teachers",
        "trees",
        "types",
        "weights",
    },
    "doctor": {
        "adapters",
        "config",
        "data",
        "distiller",
        "engines",
        "errors",
        "evaluation",
        "matching",
        "memory",
        "model_config",
        "ops",
        "report",
        "schedules",
        "trees",
    },
    "report": {"data", "errors", "evaluation", "files", "processes", "trees"},
    "export": {"adapters", "data", "errors", "evaluation", "files", "model_config", "models"},
    "ultralytics": {"adapters", "balance", "config", "distiller", "engines", "errors", "inherit", "teachers"},
}


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def sources(repository: Path) -> list[Path]:
    return sorted((repository / "detkd").rglob("*.py"))


def test_every_part_imports_only_what_lies_below_it(repository: Path) -> None:
    for path in sources(repository):
        part = path.relative_to(repository / "detkd").parts[0].removesuffix(".py")
        if part == "__init__":
            continue
        used = {name.split(".")[1] for name in imports(path) if name.startswith("detkd.") and name.count(".") >= 1}
        foreign = used - ALLOWED[part] - {part, "_C", "__version__"}
        assert not foreign, f"{path.name} imports {foreign}"


def test_only_files_of_that_name_import_ultralytics(repository: Path) -> None:
    for path in sources(repository):
        users = {name for name in imports(path) if name.split(".")[0] == "ultralytics"}
        assert not users or path.name == "ultralytics.py", path
        tree = ast.parse(path.read_text(encoding="utf-8"))
        eager = [
            node
            for node in tree.body
            if isinstance(node, ast.Import | ast.ImportFrom) and "ultralytics" in ast.dump(node).split("detkd")[0]
        ]
        assert not [n for n in eager if isinstance(n, ast.Import) or not (n.module or "").startswith("detkd")], path


@pytest.mark.parametrize("module", ["detkd.losses", "detkd.ops", "detkd.hooks"])
def test_drop_in_parts_need_torch_alone(module: str) -> None:
    blocked = ["numpy", "yaml", "pydantic", "PIL", "matplotlib", "ultralytics", "pycocotools", "rich", "torchvision"]
    code = f"import sys, torch; [sys.modules.__setitem__(m, None) for m in {blocked!r}]; import {module}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_engines_import_what_is_slow_or_optional_only_when_they_run() -> None:
    optional = {"ultralytics", "pytorch_lightning", "albumentations", "transformers", "tokenizers"}
    code = (
        f"import sys, detkd.engines.detection, detkd.engines.lightning.training; assert not {optional!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

"""Students of all families, tiny and from scratch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from detkd.model_config import ModelConfig
from detkd.models import classifier_files, torchvision, unet
from detkd.models.classifier import ClassifierArchitecture
from tests.engines.conftest import (
    checkpoint,  # noqa: F401 - a fixture
    finding_rcnn,  # noqa: F401
    teacher,  # noqa: F401
    unet_teacher,  # noqa: F401
    yolo_segmenter,  # noqa: F401
)

if TYPE_CHECKING:
    from pathlib import Path

NAMES = ("disc", "square")


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of pictures of 32 pixels."""
    torch.manual_seed(7)
    model, _ = classifier_files.build_model(ModelConfig(model="cnn", width=0.25), NAMES, role="student", imgsz=32)
    path = tmp_path_factory.mktemp("classifier") / "student.safetensors"
    classifier_files.save_model(model, path)
    return path


@pytest.fixture(scope="session")
def lstm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of sentences of up to 12 tokens."""
    torch.manual_seed(7)
    architecture = ClassifierArchitecture("lstm", NAMES, imgsz=12, width=0.25, vocabulary=50)
    path = tmp_path_factory.mktemp("lstm") / "student.safetensors"
    classifier_files.save_model(classifier_files.BUILDERS["lstm"].build(architecture, "{}"), path)
    return path


@pytest.fixture(scope="session")
def ssdlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of one stage."""
    torch.manual_seed(7)
    model, _ = torchvision.build_model(ModelConfig(model="ssdlite320_mobilenet_v3_large"), NAMES, role="student", imgsz=64)
    path = tmp_path_factory.mktemp("ssdlite") / "student.safetensors"
    torchvision.save_model(model, path)
    return path


@pytest.fixture(scope="session")
def encoder_unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A U-Net on an encoder, whose stride is 32."""
    torch.manual_seed(7)
    model, _ = unet.build_model(ModelConfig(model="unet_resnet18", width=0.25), NAMES, role="student", imgsz=64)
    path = tmp_path_factory.mktemp("unet") / "student.safetensors"
    unet.save_model(model, path)
    return path

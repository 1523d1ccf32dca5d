r"""Train a compact classifier of pictures or sentences, with or without the help of a teacher.

    detkd train-cls --config configs/classification/NAME.yaml [--resume] [key=value ...]
    detkd train-cls --config configs/text/NAME.yaml [--resume] [key=value ...]

`data` is a folder: of pictures with train and test (and val, if there is one), each a folder or a zip of one folder per
class; of sentences with train.tsv, dev.tsv and test.tsv of the columns sentence and label. Lightning trains the student.

Examples:
    # a teacher: the same command without distillation
    detkd train-cls --config configs/classification/resnet18.yaml data=DATA name=teacher
    # a student that learns from it
    detkd train-cls --config configs/classification/mobilenet_from_resnet18.yaml data=DATA name=student \
        distill.teacher.weights=runs/teacher/student.safetensors
    # sentences; a folder of transformers with a BERT for classification may teach, too
    detkd train-cls --config configs/text/bert.yaml data=DATA name=bert
    detkd train-cls --config configs/text/lstm_from_bert.yaml data=DATA name=lstm \
        distill.teacher.weights=runs/bert/student.safetensors
    detkd train-cls --config configs/text/lstm_from_bert.yaml data=DATA name=lstm \
        distill.teacher.model=bert distill.teacher.weights=FOLDER classify.tokenizer=FOLDER
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from detkd.commands.training import train, training_parser

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

TASK = "classify"


def build_parser() -> argparse.ArgumentParser:
    """Its command line."""
    return training_parser(TASK, __doc__)


def main(argv: Sequence[str] | None = None) -> None:
    """Train, evaluate and report."""
    train(TASK, build_parser(), argv)

r"""Train a compact classifier of pictures or sentences, with or without the help of a teacher.

    python tools/train_cls.py --config configs/classification/NAME.yaml [--resume] [key=value ...]
    python tools/train_cls.py --config configs/text/NAME.yaml [--resume] [key=value ...]

`data` is a folder: of pictures with train and test (and val, if there is one), each a folder or a zip of one folder per
class; of sentences with train.tsv, dev.tsv and test.tsv of the columns sentence and label. Lightning trains the student.

Examples:
    # a teacher: the same command without distillation
    python tools/train_cls.py --config configs/classification/resnet18.yaml data=DATA name=teacher
    # a student that learns from it
    python tools/train_cls.py --config configs/classification/mobilenet_from_resnet18.yaml data=DATA name=student \
        distill.teacher.weights=runs/teacher/student.safetensors
    # sentences; a folder of transformers with a BERT for classification may teach, too
    python tools/train_cls.py --config configs/text/bert.yaml data=DATA name=bert
    python tools/train_cls.py --config configs/text/lstm_from_bert.yaml data=DATA name=lstm \
        distill.teacher.weights=runs/bert/student.safetensors
    python tools/train_cls.py --config configs/text/lstm_from_bert.yaml data=DATA name=lstm \
        distill.teacher.model=bert distill.teacher.weights=FOLDER classify.tokenizer=FOLDER
"""

from __future__ import annotations

from detkd.cli import run, train


def main() -> None:
    """Train, evaluate and report."""
    train("classify", __doc__)


if __name__ == "__main__":
    run(main)

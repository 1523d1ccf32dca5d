"""The commands of ``detkd``, one a file, each with a ``build_parser`` and a ``main``.

Their files import what is slow or optional only once a command line has been read.
"""

from __future__ import annotations

# By the name that is typed: what it does. The file is called the same, with underscores.
COMMANDS = {
    "train-det": "train a detector, alone or with the help of a teacher",
    "train-seg": "train a U-Net, alone or with the help of a teacher",
    "train-cls": "train a classifier of pictures or sentences, alone or with the help of a teacher",
    "evaluate": "measure a checkpoint on a split of a data set",
    "compare": "train the same student by several recipes, and say with intervals what each gained",
    "cache-teacher": "make the cache that runs read instead of running the teacher",
    "report": "write the HTML report of a run or a comparison anew",
    "export": "write a student as ONNX, TorchScript or torch.export, checked and timed",
    "bench": "time the fused ops against eager PyTorch and torch.compile",
    "doctor": "say what will go wrong in a run, or why distillation did not help it",
    "make-synthetic": "draw the built-in data set",
    "completion": "print a script that completes commands and options in a shell",
}

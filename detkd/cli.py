"""What the command-line tools share: one clear line for an error that a user can mend, and a training run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from detkd.errors import ConfigError, DetkdError

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_INPUT = 2
INTERRUPTED = 130


def run(main: Callable[[], None]) -> NoReturn:
    """Run a tool and exit: 0 on success, 2 with one line for each fault of the input, 130 on Ctrl-C."""
    try:
        main()
    except DetkdError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)


TOOLS = {
    "detect": "tools/train_det.py",
    "segment": "tools/train_seg.py",
    "classify": "tools/train_cls.py",
}  # by the task of a run


def train(task: str, description: str | None) -> None:
    """Parse the command line of a training run, train, evaluate and report.

    Args:
        task: What the student must do, see :data:`TOOLS`.
        description: What ``--help`` says first.

    Raises:
        DetkdError: If anything of the input is wrong.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, see configs/")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. train.seed=1 distill=null")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut short")
    arguments = parser.parse_intermixed_args()

    from detkd.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    if config.task != task:
        raise ConfigError(f"student.model: {config.student.architecture} is trained by {TOOLS[config.task]}.")

    from detkd.engines.run import run_config

    run_config(config, resume=arguments.resume)

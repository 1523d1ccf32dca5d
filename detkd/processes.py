"""The processes that train together."""

from __future__ import annotations

import os


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of several; the others neither write a run's files nor print.

    Known from the environment, as torchrun and Lightning's own launcher leave it: long before the processes meet.
    """
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0

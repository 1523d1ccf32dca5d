"""What all command-line tools share: one clear line for an error that a user can mend."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, NoReturn

from detkd.errors import DetkdError

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

"""What all command lines share: their parser, and one clear line for an error that a user can mend."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from detkd.errors import DetkdError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

BAD_INPUT = 2
INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """A parser that shows its description line by line, and refuses a bad command line in one line."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, **arguments)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and where to read more."""
        self.exit(BAD_INPUT, f"error: {message}; see {self.prog} --help\n")


def run(main: Callable[[], None]) -> NoReturn:
    """Run a command and exit: 0 on success, 2 with one line for each fault of the input, 130 on Ctrl-C."""
    try:
        main()
    except DetkdError as error:
        _refuse(str(error))
    except OSError as error:  # a full disk, a folder that cannot be read: the system names the file
        _refuse(one_line(error))
    except (MemoryError, RuntimeError) as error:
        from detkd.memory import is_exhausted

        if not is_exhausted(error):
            raise
        _refuse(
            f"Expected enough memory, but there is none left: {one_line(error)}. Lower train.batch or train.imgsz; what "
            "was saved is whole, and --resume goes on from it."
        )
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    sys.exit(0)


def _refuse(message: str) -> NoReturn:
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    sys.exit(BAD_INPUT)

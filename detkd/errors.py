"""Errors that a user can mend.

Every one says what was expected, what came, and what to do. The command-line tools print it as one line and exit
with code 2; anything else that escapes is a defect of detkd and keeps its traceback.
"""

LONGEST_REASON, LONGEST_VALUE = 300, 200  # characters


class DetkdError(Exception):
    """Base of all errors that detkd raises on purpose."""


class ArgumentError(DetkdError, ValueError):
    """An argument of a loss or an op has the wrong value, shape or dtype."""


class BackendError(DetkdError, RuntimeError):
    """The fused kernels were asked for and cannot run here."""


class ConfigError(DetkdError):
    """The configuration is wrong; the message holds one line for each fault, all faults at once."""


class DataError(DetkdError):
    """A data set has a missing, broken or contradictory file."""


class StorageError(DetkdError):
    """There is no room for a file, or its disk fails; what was written before is whole."""


class WeightsError(DetkdError):
    """A checkpoint is missing, unreadable, unsafe to load, or fits nothing of the model."""


class AdapterError(DetkdError):
    """A teacher and a student cannot be matched, or a model offers no such tap."""


class ExportError(DetkdError):
    """A student cannot be exported to a format, or what was exported says something else than the student."""


class CacheError(DetkdError):
    """A cache of teacher outputs is stale, incomplete or damaged, or there is no room for it."""


def one_line(error: BaseException) -> str:
    """The beginning of what a library says, without its line breaks; the error's kind where it says nothing."""
    text = " ".join(str(error).split())
    return f"{text[:LONGEST_REASON]}…" if len(text) > LONGEST_REASON else text or type(error).__name__


def shorten(value: object) -> str:
    """The beginning of what a faulty value looks like; a file may hold any amount of it."""
    text = repr(value)
    return f"{text[:LONGEST_VALUE]}…" if len(text) > LONGEST_VALUE else text

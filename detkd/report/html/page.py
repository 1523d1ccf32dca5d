"""A page that is one file: style, script and pictures are in it, and it may load nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import shlex
import statistics
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from detkd import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

TEMPLATES = Path(__file__).parent / "templates"
NONE = "–"  # where there is no number
TYPES = {".webp": "image/webp", ".png": "image/png"}


def render(template: str, **content: object) -> str:
    """Fill a template; whatever is not made here by :mod:`detkd.report.html` is escaped.

    Args:
        template: File name in ``templates/``.
        content: What it shows.
    """
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("style.css", "script.js"))
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        _environment()
        .get_template(template)
        .render(policy=policy, style=Markup(style), script=Markup(script), detkd_version=__version__, **content)
    )


def data_uri(path: Path) -> str:
    """A picture's content as an address."""
    return f"data:{TYPES[path.suffix]};base64,{base64.b64encode(path.read_bytes()).decode()}"


def number(value: object, digits: int = 3) -> str:
    """A number as in a table; a dash where there is none."""
    return f"{value:.{digits}f}" if isinstance(value, int | float) and math.isfinite(value) else NONE


def signed(value: object, digits: int = 3) -> str:
    """The same of a difference, with its sign."""
    words = number(value, digits)
    return words if words == NONE else words.replace("-", "−") if words.startswith("-") else f"+{words}"


def count(value: float) -> str:
    """A number of parameters, in thousands or millions."""
    return f"{value / 1e6:.2f} M" if value >= 1e5 else f"{value / 1e3:.1f} k"


def share(value: float) -> str:
    """A share in percent, to two digits at least where it is small."""
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def duration(seconds: float) -> str:
    """A length of time in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def command_line(words: Sequence[str]) -> str:
    """What was typed, from ``sys.argv``: a script is run by Python, an installed command by its name."""
    first, rest = Path(words[0]), words[1:]
    if first.name == "__main__.py":
        return shlex.join(["python", "-m", first.parent.name, *rest])
    return shlex.join([*(["python", words[0]] if first.suffix == ".py" else [first.name]), *rest])


def parted(name: str) -> Markup:
    """A name in the parts between which a line may end; a number stays with what it is of, as in ``weight-1``."""
    parts = re.split(r"(?<=[_\s])(?=\S)|(?<=-)(?=[^\d-])", name)
    return Markup("<wbr>").join(Markup('<span class="part">{}</span>').format(part) for part in parts)


def mean(values: Sequence[float | None]) -> float | None:
    """The mean of what is known; None where nothing is."""
    known = [value for value in values if value is not None]
    return statistics.mean(known) if known else None


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "count": count,
        "duration": duration,
        "command_line": command_line,
        "mean": mean,
        "parted": parted,
    }
    return environment

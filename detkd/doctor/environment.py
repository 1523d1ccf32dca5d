"""Is the extension there, and which kernels run."""

from __future__ import annotations

from detkd.doctor.findings import Finding, Kind, passed
from detkd.ops import load_error
from detkd.ops._extension import HOW_TO_BUILD, cpu_capabilities, cpu_capability

MISSING = Kind(
    "extension.missing",
    "warning",
    "the compiled losses are not there",
    "The extension detkd._C was not built, or was built for another torch. Results are the same, steps are slower.",
    HOW_TO_BUILD,
)
HELD_DOWN = Kind(
    "extension.held_down",
    "warning",
    "the kernels run on a narrower instruction set than the processor has",
    "The environment variable DETKD_CPU holds them down.",
    "Unset DETKD_CPU.",
)
REFUSED = Kind(
    "extension.refused",
    "error",
    "the kernels cannot run",
    "The environment variable DETKD_CPU asks for an instruction set that this processor, or detkd, does not have.",
    "Unset DETKD_CPU.",
)
KINDS = (MISSING, HELD_DOWN, REFUSED)


def check_extension() -> list[Finding]:
    """Whether the fused ops are loaded, and how wide they run."""
    error = load_error()
    if error is not None:
        return [MISSING.found(f"{error}.")]
    able = cpu_capabilities()
    try:
        running = cpu_capability()
    except RuntimeError as refused:
        return [REFUSED.found(str(refused).splitlines()[0])]
    if running != able[0]:
        return [HELD_DOWN.found(f"{running} runs where the processor has {able[0]}.")]
    return [passed("extension", f"The fused losses are loaded and run on {running}.")]

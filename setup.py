"""Builds detkd._C, the compiled ops; everything else stands in pyproject.toml.

DETKD_BUILD=auto (default) builds the extension and installs without it where that fails; cpu insists on it; none leaves it
out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

MODES = ("auto", "cpu", "none")


def build_arguments() -> dict[str, Any]:
    mode = os.environ.get("DETKD_BUILD", "auto")
    if mode not in MODES:
        sys.exit(f"error: expected DETKD_BUILD to be one of {list(MODES)}, but got {mode!r}.")
    if mode == "none":
        print("detkd: no extension (DETKD_BUILD=none)")
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        if mode == "cpu":
            raise
        print(f"detkd: no extension, torch is missing from the build environment ({error}); use --no-build-isolation")
        return {}

    class Build(BuildExtension):  # type: ignore[misc]
        """Lets an installation succeed where the compiler fails, unless the extension was asked for."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if mode == "cpu":
                    raise
                print(f"detkd: no extension, compilation failed: {error}", file=sys.stderr)
                self.extensions = []

    root = Path(__file__).parent
    sources = sorted(str(path.relative_to(root)) for path in root.glob("csrc/**/*.cpp"))
    extension = CppExtension("detkd._C", sources, extra_compile_args=["-O3", "-std=c++20"])
    print(f"detkd: building detkd._C for the CPU from {len(sources)} files")
    return {"ext_modules": [extension], "cmdclass": {"build_ext": Build}}


setup(**build_arguments())

"""Build detkd._C for AddressSanitizer and UBSan, beside the library in use, and run the tests of the ops on it.

    python tools/sanitize.py [pytest's arguments]

The build, by gcc and for the CPU, stays in build/sanitized. The tests run once with each instruction set that the processor
has; without arguments they are those of tests/ops that are not slow. The first finding ends a run, and says where it is.
The CUDA kernels have sanitizers of their own, in tests/csrc.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "build" / "sanitized"
SANITIZERS = "address,undefined"
RUNTIMES = ("libasan.so", "libubsan.so", "libstdc++.so")  # AddressSanitizer's must be the first that a process loads
OPTIONS = {
    # Python and torch never free all that they have. Of what is freed a little is kept back, to be caught when it is used
    # again: a test bounds how much memory remains.
    "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:quarantine_size_mb=8:thread_local_quarantine_size_kb=64",
    "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
}
# The sanitizers write to the standard error of the process, which pytest would take with it where it captures that.
PYTEST = ("-m", "pytest", "-q", "--capture=sys", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"))
TESTS = (
    str(ROOT / "tests" / "ops"),
    *("-m", "not slow"),
    # What looks at the build that is in use, or starts tests of its own.
    *(f"--ignore={ROOT / 'tests' / 'ops' / name}" for name in ("test_instruction_sets.py", "test_extension.py")),
    *("-k", "not test_every_instruction_set"),
)


def build(root: Path, folder: Path) -> Path:
    """Build the extension of a source tree, as far as it has changed.

    Args:
        root: The tree, with its setup.py.
        folder: What the compiler writes is kept here.

    Returns:
        The folder that holds the package ``detkd`` with the extension.

    Raises:
        CalledProcessError: If the compiler fails; it has said why.
    """
    lib = folder / "lib"
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(folder), "--build-lib", str(lib)]
    environment = {"MAX_JOBS": "2", **os.environ, "DETKD_SANITIZE": SANITIZERS}
    subprocess.run(command, cwd=root, env=environment, check=True)
    return lib


def run(lib: Path, *arguments: str, cpu: str = "portable", capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python on a package from :func:`build`, under the sanitizers.

    Args:
        lib: What was built.
        arguments: Of Python.
        cpu: The instruction set.
        capture: Keep what is said, rather than let it be seen.
    """
    compiler = os.environ.get("CXX", "c++")
    finding = [[compiler, f"-print-file-name={name}"] for name in RUNTIMES]
    runtimes = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() for command in finding]
    environment = {
        **os.environ,
        **OPTIONS,
        "DETKD_CPU": cpu,
        "LD_PRELOAD": " ".join(runtimes),
        "OMP_NUM_THREADS": "2",
        "PYTHONPATH": os.pathsep.join([str(lib), str(ROOT)]),
    }
    # Without randomised addresses: older sanitizers refuse the layouts of newer kernels. Python looks for packages in the
    # folder that it is started in, first of all.
    command = ["setarch", "-R", sys.executable, *arguments]
    return subprocess.run(command, cwd=lib, env=environment, capture_output=capture, text=True, check=False)


def instruction_sets(lib: Path) -> list[str]:
    """Those that a package from :func:`build` can use here, widest first.

    Raises:
        RuntimeError: If it cannot be loaded, or another one was loaded in its place.
    """
    program = "from detkd.ops import _extension as e; print(e._C.__file__); print(*e.cpu_capabilities())"
    said = run(lib, "-c", program, capture=True)
    if said.returncode or not said.stdout.startswith(f"{lib}{os.sep}"):
        raise RuntimeError(f"expected the extension in {lib} to be loaded, but: {said.stdout}{said.stderr}")
    return said.stdout.split("\n")[1].split()


def main() -> None:
    """Build, and run the tests with each instruction set; exit with pytest's code where one fails."""
    lib = build(ROOT, BUILT)
    for cpu in instruction_sets(lib):
        print(f"{SANITIZERS} on {cpu}:", flush=True)
        if code := run(lib, *PYTEST, *(sys.argv[1:] or TESTS), cpu=cpu).returncode:
            sys.exit(code)


if __name__ == "__main__":
    main()

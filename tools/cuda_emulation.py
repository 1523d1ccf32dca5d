"""The CUDA kernels built for the host, where csrc/emulation runs them, and their launchers as functions of tensors."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}

_Pointer, _Count, _Real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


class Logits(ctypes.Structure):
    """The struct of this name in csrc/emulation/bindings.h."""

    _fields_ = (
        [("type", ctypes.c_int)]
        + [(name, _Pointer) for name in ("student", "teacher", "gradient", "weight", "mask", "loss")]
        + [(name, _Count) for name in ("outer", "step", "inner")]
        + [("temperature", _Real), ("scale", _Real), ("reduced", ctypes.c_bool)]
    )


class Maps(ctypes.Structure):
    """The struct of this name in csrc/emulation/bindings.h."""

    _fields_ = (
        [("type", ctypes.c_int)]
        + [(name, _Pointer) for name in ("student", "teacher", "gradient", "weight", "loss")]
        + [(name, _Count) for name in ("batch", "channels", "teacher_channels", "positions")]
        + [(name, _Count) for name in ("student_batch", "student_channel", "teacher_batch", "teacher_channel")]
        + [("scale", _Real)]
    )


class Launch(NamedTuple):
    """A kernel that was run, and the bytes of inputs and gradients that it moved."""

    kernel: str
    blocks: int
    threads: int
    shared: int
    moved: int


def compile_emulation(csrc: Path, output: Path, *flags: str, main: bool = False) -> None:
    """Compile the launchers and kernels below `csrc` as C++; with `main`, into a program."""
    sources = [*sorted((csrc / "cuda").glob("*.cu")), csrc / "emulation/runtime.cpp", csrc / "emulation/bindings.cpp"]
    sources += [csrc / "emulation/sanitized_main.cpp"] if main else []
    command = ["g++", "-std=c++20", "-x", "c++", "-I", str(csrc / "emulation/include"), *flags, *map(str, sources)]
    built = subprocess.run([*command, "-pthread", "-o", str(output)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr


class Emulation:
    """A library of the launchers. Every op returns its loss and its gradient, in memory that held other numbers before."""

    def __init__(self, folder: Path) -> None:
        """Build it in `folder`."""
        compile_emulation(ROOT / "csrc", folder / "emulation.so", "-O2", "-fPIC", "-shared")
        self.library = ctypes.CDLL(str(folder / "emulation.so"))
        self.library.emulated_launches.restype = ctypes.c_char_p
        self.library.emulated_workspace.restype = ctypes.c_int64

    def kl_div(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float,
        weight: Tensor | None,
        reduced: bool,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Of [outer, classes, inner] logits of the same strides, 1 along inner; a mask is of rows."""
        outer, classes, inner = student.shape
        gradient, loss = _room(student, () if reduced else (outer, inner))
        logits = _logits(student, teacher, gradient, weight, loss, (outer, inner), temperature, mask)
        assert student.stride() == teacher.stride()
        error = self.library.emulate_kl_div(ctypes.byref(logits), _Count(classes), _Count(student.stride(1)))
        assert error == 0
        return loss, gradient

    def binary_kl(
        self,
        student: Tensor,
        teacher: Tensor,
        temperature: float,
        beta: float,
        kind: str,
        weight: Tensor | None,
        reduced: bool,
    ) -> tuple[Tensor, Tensor]:
        """Of [outer, inner] logits; student and teacher have the same strides, 1 along inner."""
        gradient, loss = _room(student, () if reduced else student.shape)
        logits = _logits(student, teacher, gradient, weight, loss, student.shape, temperature)
        assert student.stride() == teacher.stride()
        assert self.library.emulate_binary_kl(ctypes.byref(logits), _Real(beta), ctypes.c_bool(kind == "bce")) == 0
        return loss, gradient

    def on_maps(
        self, op: str, student: Tensor, teacher: Tensor, weight: Tensor | None, *options: float
    ) -> tuple[Tensor, Tensor]:
        """Of [batch, channels, positions] maps, stride 1 along positions; the gradient comes undivided."""
        gradient, loss = _room(student, ())
        maps = Maps(
            TYPES[student.dtype], *_pointers(student, teacher, gradient, weight, loss), *student.shape[:2],
            teacher.shape[1], student.shape[2], *student.stride()[:2], *teacher.stride()[:2], 1.0,
        )  # fmt: skip
        assert getattr(self.library, f"emulate_{op}")(ctypes.byref(maps), *map(_Real, options)) == 0
        return loss, gradient

    def scale(self, gradient: Tensor, factor: Tensor) -> None:
        """Multiply in place."""
        count = _Count(gradient.numel())
        pointers = _Pointer(gradient.data_ptr()), count, _Pointer(factor.data_ptr())
        assert self.library.emulate_scale(TYPES[gradient.dtype], *pointers) == 0

    def workspace(self) -> int:
        """Return the bytes of scratch that the last op asked for."""
        return int(self.library.emulated_workspace())

    def launches(self) -> list[Launch]:
        """Return what was launched since this was last asked."""
        lines = self.library.emulated_launches().decode().splitlines()
        return [Launch(_plain_name(name), *map(int, numbers)) for name, *numbers in (line.split("\t") for line in lines)]


def _plain_name(name: str) -> str:
    """From what the compiler says: ``... [with auto Kernel = detkd::kernel<float, 4>]``."""
    name = re.sub(r"^.*Kernel = |[\]()&]|detkd::|\{anonymous\}::", "", name).strip()
    return name.replace("BFloat16", "__nv_bfloat16").replace("Half", "__half")


def _room(student: Tensor, loss: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    return torch.full(student.shape, 7.0, dtype=student.dtype), torch.full(loss, 7.0)


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if x is None else x.data_ptr() for x in tensors]


def _logits(
    student: Tensor,
    teacher: Tensor,
    gradient: Tensor,
    weight: Tensor | None,
    loss: Tensor,
    positions: tuple[int, ...],
    temperature: float,
    mask: Tensor | None = None,
) -> Logits:
    pointers = _pointers(student, teacher, gradient, weight, mask, loss)
    outer, inner = positions
    reduced = loss.ndim == 0
    return Logits(TYPES[student.dtype], *pointers, outer, student.stride(0), inner, temperature, 1.0, reduced)

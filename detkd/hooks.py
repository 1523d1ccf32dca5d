"""Capture of activations by module path."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from detkd.errors import AdapterError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn
    from torch.utils.hooks import RemovableHandle


class _Recorder:
    """Forward hook that keeps a module's latest inputs and output.

    A recorder that is pickled or deep-copied with its model comes out empty: activations carry a graph, which can be
    neither, and nothing of a training step belongs into a checkpoint.
    """

    paused = False
    calls = 0

    def __init__(self) -> None:
        self.record: tuple[tuple[Any, ...], Any] | None = None

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if not self.paused:
            self.record = (inputs, output)
            if not torch.compiler.is_compiling():  # a number that grows would be compiled anew in each step
                self.calls += 1

    def __getstate__(self) -> dict[str, Any]:
        return {"record": None}


class Capture:
    """Records what goes into and comes out of some modules of a model while it runs.

    Use it as a context manager, or call :meth:`attach` and :meth:`detach`. Entering clears what an earlier pass left;
    leaving removes the hooks, also when the pass raised.

    Args:
        model: The model to watch.
        paths: Names of its modules as in ``model.named_modules()``; ``""`` is the model itself.

    Raises:
        AdapterError: If the model has no module of such a name.

    Examples:
        >>> from torch import nn, zeros
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
        >>> with Capture(model, ["0"]) as capture:
        ...     _ = model(zeros(1, 2))
        ...     capture.output("0").shape
        torch.Size([1, 3])
    """

    def __init__(self, model: nn.Module, paths: Iterable[str]) -> None:
        modules = dict(model.named_modules())
        self._modules: dict[str, nn.Module] = {}
        for path in paths:
            if path not in modules:
                raise AdapterError(
                    f"Expected a module path of {type(model).__name__}, but got {path!r}. "
                    f"Its direct children are {[name for name, _ in model.named_children()]}."
                )
            self._modules[path] = modules[path]
        self._recorders = {path: _Recorder() for path in self._modules}
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Install the hooks; what an earlier pass left is cleared. A second call changes nothing."""
        self.clear()
        if not self._handles:
            self._handles = [module.register_forward_hook(self._recorders[path]) for path, module in self._modules.items()]

    def detach(self) -> None:
        """Remove the hooks and let go of everything recorded."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.clear()

    def clear(self) -> None:
        """Let go of what was recorded, and of the autograd graph behind it."""
        for recorder in self._recorders.values():
            recorder.record = None

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing for a while: for modules that are run beside the model's own forward pass."""
        for recorder in self._recorders.values():
            recorder.paused = True
        try:
            yield
        finally:
            for recorder in self._recorders.values():
                recorder.paused = False

    @property
    def calls(self) -> dict[str, int]:
        """How often each module has run under the hooks in all, compiled passes left out; clearing resets nothing."""
        return {path: recorder.calls for path, recorder in self._recorders.items()}

    def has_run(self, path: str) -> bool:
        """Whether the module at `path` has run since the last clear."""
        return self._recorders[path].record is not None

    def inputs(self, path: str) -> tuple[Any, ...]:
        """Return the positional inputs of the latest call of the module at `path`."""
        return self._record(path)[0]

    def output(self, path: str) -> Any:
        """Return the output of the latest call of the module at `path`."""
        return self._record(path)[1]

    def _record(self, path: str) -> tuple[tuple[Any, ...], Any]:
        record = self._recorders[path].record
        if record is None:
            state = "ran no forward pass" if self._handles else "is not attached"
            raise AdapterError(
                f"Expected module {path!r} to have run since the last clear, but it recorded nothing: the capture "
                f"{state}. Attach it to the very model object that runs (trainers may rebuild or copy theirs)."
            )
        return record

    def __enter__(self) -> Capture:
        self.attach()
        return self

    def __exit__(self, *_: object) -> None:
        self.detach()

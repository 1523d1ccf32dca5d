"""What all adapters share that watch their model by hooks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detkd.hooks import Capture


class Hooked:
    """Base of an adapter whose hooks are those of one capture, which its constructor makes."""

    _capture: Capture

    @property
    def calls(self) -> dict[str, int]:
        """How often each watched module has run under the hooks so far; see :attr:`detkd.hooks.Capture.calls`."""
        return self._capture.calls

    def attach(self) -> None:
        """Install the hooks."""
        self._capture.attach()

    def detach(self) -> None:
        """Remove the hooks and let go of captured tensors."""
        self._capture.detach()

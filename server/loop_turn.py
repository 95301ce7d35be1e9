"""Which turns of the event loop are taken by a batch that runs on it."""

import asyncio


class LoopTurn:
    """Whether a batch has run on the event loop in this turn of it; all executors of a process share one.

    Without it the loop would stand still for one batch of each model that is busy, one after the other.
    """

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = False

    def take(self) -> None:
        """Takes the turn that the loop is in; it is free again in the next one."""
        self.taken = True
        asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self.taken = False

"""A version that computes live requests unseen, so that it can be compared before anybody depends on it.

    answer sent ──mirror──▶ shadow's own batcher ──▶ same class as the answer? ──▶ counted, thrown away

The caller never waits for it and never learns of its failure. How many run at once is bounded: what is over that is
dropped, and counted, rather than queued behind live traffic.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from server.errors import ShoalError
from server.tensors import Array
from server.versions import LoadedModel

PRIORITY: Final = 1_000_000  # behind every request that asks for the shadow's version by its number
MAX_RUNNING: Final = 64  # requests mirrored at once, in each worker


@dataclass(frozen=True, slots=True)
class ShadowStatistics:
    """How one shadow compares with one version that answers.

    Args:
        name: The model.
        answered: The version whose answers callers got.
        shadow: The version that computed the same requests.
        requests: Compared ones.
        rows: Rows in them.
        agreed_rows: Rows for which both chose the same class (or gave the same values, where an output has no classes).
        max_abs_difference: Largest difference of any value of a numeric output.
        failed: Requests that the shadow could not compute.
        dropped: Requests not mirrored because too many were under way.
    """

    name: str
    answered: int
    shadow: int
    requests: int = 0
    rows: int = 0
    agreed_rows: int = 0
    max_abs_difference: float = 0.0
    failed: int = 0
    dropped: int = 0


class Shadows:
    """Mirrors requests to shadow versions and counts how their answers compare.

    Args:
        max_running: Requests mirrored at once.
    """

    def __init__(self, *, max_running: int = MAX_RUNNING) -> None:
        self._max_running = max_running
        self._counts: dict[tuple[str, int, int], ShadowStatistics] = {}
        self._running: set[asyncio.Task[None]] = set()

    def mirror(
        self, shadow: LoadedModel, answered: int, inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> None:
        """Has a shadow compute a request that has been answered. Returns at once.

        Args:
            shadow: Of `Models.shadow`, just now.
            answered: The version that answered.
            inputs: The request's tensors; nobody may change them any more.
            outputs: The answer; likewise.
        """
        key = (shadow.name, answered, shadow.version)
        if len(self._running) >= self._max_running:
            self._count(key, dropped=1)
            return
        # The task starts later than this call, so the lease is taken here: the shadow may be replaced in between.
        lease = shadow.lease()
        lease.__enter__()
        task = asyncio.create_task(self._compare(shadow, key, inputs, outputs))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        # As one that was cancelled: nobody waited for it, so it says nothing about the version's health.
        task.add_done_callback(lambda _: lease.__exit__(asyncio.CancelledError, None, None))

    def statistics(self) -> tuple[ShadowStatistics, ...]:
        """The counts so far, by model and versions."""
        return tuple(self._counts[key] for key in sorted(self._counts))

    async def idle(self) -> None:
        """Waits until nothing is under way."""
        while self._running:
            await asyncio.wait(self._running)

    async def close(self) -> None:
        """Gives up what is under way."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _compare(
        self, shadow: LoadedModel, key: tuple[str, int, int], inputs: Mapping[str, Array], outputs: Mapping[str, Array]
    ) -> None:
        try:
            result = await shadow.batcher.submit(inputs, priority=PRIORITY)
        except ShoalError:
            self._count(key, failed=1)
            return
        name = next((spec.name for spec in shadow.outputs if spec.name in outputs), None)
        if name is None:
            self._count(key, failed=1)
            return
        rows, agreed, difference = compare(outputs[name], result.outputs[name])
        self._count(key, requests=1, rows=rows, agreed_rows=agreed, max_abs_difference=difference)

    def _count(self, key: tuple[str, int, int], *, max_abs_difference: float = 0.0, **more: int) -> None:
        counts = self._counts.get(key) or ShadowStatistics(*key)
        largest = max(counts.max_abs_difference, max_abs_difference)
        sums = {field: getattr(counts, field) + count for field, count in more.items()}
        self._counts[key] = replace(counts, max_abs_difference=largest, **sums)


def compare(answer: Array, shadow: Array) -> tuple[int, int, float]:
    """Compares one output of two versions.

    Args:
        answer: What the caller got, rows first.
        shadow: What the shadow computed.

    Returns:
        Rows, rows that agree, and the largest difference of any value (0 where they are no numbers, infinite where the
        shapes differ).
    """
    rows = len(answer) if answer.ndim else 1
    if answer.shape != shadow.shape:
        return rows, 0, float("inf")
    first, second = answer.reshape(rows, -1), shadow.reshape(rows, -1)
    scores = answer.dtype.kind == "f" and first.shape[1] > 1
    same = first.argmax(axis=1) == second.argmax(axis=1) if scores else (first == second).all(axis=1)
    numeric = answer.dtype.kind in "fiub" and shadow.dtype.kind in "fiub" and first.size > 0
    difference = np.abs(first.astype(np.float64) - second.astype(np.float64)).max() if numeric else 0.0
    return rows, int(same.sum()), float(difference)

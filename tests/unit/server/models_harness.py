"""What the tests of `server.models` share: a folder, a virtual clock, and ticks by hand."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from server.batcher import BatcherOptions
from server.executor import ExecutorOptions
from server.health_bounds import HealthBounds
from server.models import LoadedModel, LoadOptions, ModelEvent, Models, ModelsOptions
from tests.unit.server.bundle_factory import pictures, probabilities, weights

NEVER_S = 1e6
LOAD = LoadOptions(ExecutorOptions(max_batch_rows=4), BatcherOptions(max_batch_rows=4))
OPTIONS = ModelsOptions(LOAD, poll_interval_s=NEVER_S, bounds=HealthBounds(window_s=0))
BOUNDS = HealthBounds(window_s=60, min_requests=10, max_error_rate=0.1, max_latency_ratio=3, latency_slack_s=0.02)
ON_TRIAL = replace(OPTIONS, bounds=BOUNDS)


class Harness:
    """A `Models` over a folder, whose ticks and time are the test's."""

    def __init__(self, folder: Path, options: ModelsOptions = OPTIONS) -> None:
        self.folder = folder
        self.now_s = 0.0
        self.events: list[ModelEvent] = []
        self.models = Models(folder, options, on_event=self.events.append, clock=lambda: self.now_s)

    async def look(self, *, drain: bool = True) -> None:
        """Two ticks, so that what has changed is believed, and all that follows from them."""
        await self.models.poll()
        await self.models.poll()
        await self.models.settled()
        if drain:
            await self.models.drained()

    async def ask(self, name: str = "", version: int | None = None, key: str = "") -> int:
        """Sends one request as the service does. Returns the version that answered, by its own answer."""
        model = self.models.choose(name, version, key)
        with model.lease():
            return await answer(model)

    def states(self, name: str = "pets") -> dict[int, str]:
        """Version → state."""
        return {state.version: state.state for state in self.models.index() if state.name == name}

    def reason(self, version: int, name: str = "pets") -> str:
        """What the index says of a version."""
        return next(s.reason for s in self.models.index() if (s.name, s.version) == (name, version))

    def kinds(self, version: int | None = None) -> list[str]:
        """The kinds of the events so far, of one version or all."""
        return [event.kind for event in self.events if version in (None, event.version)]


async def answer(model: LoadedModel) -> int:
    """Which version the probabilities come from; checks that all rows come from it."""
    rows = pictures(3, seed=1)
    received = (await model.batcher.submit({"image": rows})).outputs["probabilities"]
    np.testing.assert_allclose(received, probabilities(weights(model.version), rows), atol=1e-5)
    return model.version


def run(
    folder: Path, test: Callable[[Harness], Awaitable[Any]], options: ModelsOptions = OPTIONS, *, start: bool = True
) -> Any:
    """Runs a test's coroutine between start and close, on an event loop of its own."""

    async def main() -> Any:
        harness = Harness(folder, options)
        async with AsyncExitStack() as stack:
            if start:
                await harness.models.start()
                stack.push_async_callback(harness.models.close)
            return await test(harness)

    return asyncio.run(main())

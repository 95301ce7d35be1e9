"""Brings versions up and takes them down, one step at a time.

    update(scan) ──▶ shelves ──▶ worker: next step? ──Load──▶ load, verify ──▶ swap ──▶ drain the old ──▶ close
                                             │     └─Unload─▶ swap ──▶ drain ──▶ close
    judge ──▶ bounds broken? ──▶ swap back ──┘

At most one version is being loaded at a time, and whoever reads `serving` sees the state before a swap or the state
after it: a swap is one assignment. A failure leaves what is being served as it is.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server import memory
from server.health_bounds import HealthBounds
from server.repository import Load, ModelFolder, Step, VersionPolicy
from server.shelf import Rejection, Serving, Shelf
from server.versions import LoadedModel, spell_error

EventKind = Literal[
    "loading", "ready", "failed", "draining", "unloaded", "rolled_back", "confirmed", "policy", "policy_refused", "scan"
]


@dataclass(frozen=True, slots=True)
class ModelEvent:
    """Something that happened to a model, for logs and metrics.

    Args:
        kind: "loading", "ready", "failed" (to load), "draining", "unloaded", "rolled_back", "confirmed" (probation
            passed), "policy" (a changed one is in force), "policy_refused", "scan" (a folder cannot be read).
        name: The model; empty where it is about the whole folder.
        version: The version; None where it is about the whole model.
        reason: Why, or what is amiss; empty where there is nothing to say.
        variant: The graph that runs, with "ready".
        duration_s: How long the load took, with "ready" and "failed", in seconds.
        fault: The class of the error, with "failed".
    """

    kind: EventKind
    name: str
    version: int | None = None
    reason: str = ""
    variant: str = ""
    duration_s: float = 0.0
    fault: str = ""


class Lifecycle:
    """Keeps the loaded versions what the scans say they should be.

    Args:
        load: Brings up the version in a folder.
        folder: The models folder.
        versions: Which versions are loaded where a model's policy file does not say.
        bounds: What a new version must keep to in its first minutes.
        on_event: Told of everything that happens, on the event loop.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        load: Callable[[Path, Load], Awaitable[LoadedModel]],
        folder: Path,
        versions: VersionPolicy,
        bounds: HealthBounds,
        on_event: Callable[[ModelEvent], None],
        clock: Callable[[], float],
    ) -> None:
        self.shelves: dict[str, Shelf] = {}
        self.serving: Mapping[str, Serving] = {}
        self._on_event = on_event
        self._load_folder = load
        self._folder = folder
        self._versions = versions
        self._bounds = bounds
        self._clock = clock
        self._following = False  # after the first load; what comes up later is on probation
        self._wake, self._idle = asyncio.Event(), asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._drains: set[asyncio.Task[None]] = set()

    def emit(self, event: ModelEvent) -> None:
        """Tells the listener; its failure is reported and stops nothing."""
        try:
            self._on_event(event)
        except Exception as error:  # noqa: BLE001 - a broken log must not stop versions from being swapped
            self.report(f"the listener of model events failed on '{event.kind}'", error)

    def report(self, message: str, error: Exception) -> None:
        """Hands an error that has no caller to the event loop's handler, which logs it."""
        asyncio.get_running_loop().call_exception_handler({"message": message, "exception": error})

    def update(self, models: Mapping[str, ModelFolder]) -> None:
        """Takes in what the models folder holds. Policies are in force on return, loads follow."""
        for name in models.keys() - self.shelves.keys():
            self.shelves[name] = Shelf(name, self._versions)
        for name, shelf in list(self.shelves.items()):
            before = shelf.exposed()
            if shelf.see(models.get(name)):
                kind: EventKind = "policy_refused" if shelf.policy_problem else "policy"
                self.emit(ModelEvent(kind, name, reason=shelf.policy_problem))
                self._publish(shelf, before)
            if shelf.empty:
                del self.shelves[name]
        self.wake()

    def wake(self) -> None:
        """Has the worker look for something to do."""
        self._idle.clear()
        self._wake.set()

    async def settle(self) -> None:
        """Loads and unloads until nothing is left to do."""
        while (todo := self._next()) is not None:
            shelf, step = todo
            if isinstance(step, Load):
                await self._load(shelf, step)
            else:
                self._let_go(shelf, step.version)

    def follow(self) -> None:
        """From now on works in the background, whenever it is woken."""
        self._following = True
        self._worker = asyncio.create_task(self._work())

    async def settled(self) -> None:
        """Waits until there is nothing left to load or unload."""
        await self._idle.wait()

    async def drained(self) -> None:
        """Waits until every version that was let go is closed."""
        while self._drains:
            await asyncio.wait(self._drains)

    async def close(self) -> None:
        """Abandons a load, answers what was accepted, and frees every session."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        self._following = False
        for shelf in self.shelves.values():
            for version in list(shelf.loaded):
                self._let_go(shelf, version)
        await self.drained()
        self.shelves.clear()

    def judge(self) -> None:
        """Ends probations whose time is up, and swaps back the versions that broke their bounds."""
        for shelf in self.shelves.values():
            trial = shelf.probation
            if trial is None:
                continue
            broken = shelf.judge(self._bounds)
            if broken is not None:
                self._roll_back(shelf, trial.version, f"rolled back to version {trial.previous}: {broken}")
            elif self._clock() >= trial.until_s:
                shelf.probation = None
                self.emit(ModelEvent("confirmed", shelf.name, trial.version))
                self.wake()

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self.settle()
            except Exception as error:  # noqa: BLE001 - a fault of ours; the next change in the folder is taken in again
                self.report("loading models failed; what is loaded goes on", error)
            if not self._wake.is_set():
                self._idle.set()

    def _next(self) -> tuple[Shelf, Step] | None:
        for _, shelf in sorted(self.shelves.items()):
            step = shelf.next_step()
            if step is not None:
                return shelf, step
        return None

    async def _load(self, shelf: Shelf, step: Load) -> None:
        started_s = self._clock()
        shelf.loading = step.version
        self.emit(ModelEvent("loading", shelf.name, step.version))
        try:
            model = await self._load_folder(self._folder / shelf.name / str(step.version), step)
        except Exception as error:  # noqa: BLE001 - whatever a bundle does to us, the versions that serve go on
            reason = spell_error(error)
            shelf.rejected[step.version] = Rejection(step.stamp, reason)
            took_s = self._clock() - started_s
            fault = type(error).__name__
            self.emit(ModelEvent("failed", shelf.name, step.version, reason, duration_s=took_s, fault=fault))
        else:
            self._put_up(shelf, model, self._clock() - started_s)
        finally:
            shelf.loading = None

    def _put_up(self, shelf: Shelf, model: LoadedModel, took_s: float) -> None:
        before, replaced = shelf.exposed(), shelf.loaded.get(model.version)
        shelf.end_probation_of(model.version)
        shelf.loaded[model.version] = model
        shelf.rejected.pop(model.version, None)
        self._publish(shelf, before)
        self.emit(ModelEvent("ready", shelf.name, model.version, model.note, model.variant, took_s))
        if replaced is not None:
            self._drain(shelf, replaced)

    def _let_go(self, shelf: Shelf, version: int) -> None:
        before = shelf.exposed()
        shelf.end_probation_of(version)
        model = shelf.loaded.pop(version)
        self._publish(shelf, before)
        self._drain(shelf, model)

    def reject(self, name: str, version: int, reason: str) -> None:
        """Takes back a version that was found wanting elsewhere, if another one can answer instead.

        Args:
            name: The model.
            version: Its version.
            reason: What was wrong with it.
        """
        shelf = self.shelves.get(name)
        if shelf is None:
            return
        if version in shelf.loaded:
            if len(shelf.loaded) > 1:
                self._roll_back(shelf, version, reason)
        elif version in shelf.available:
            shelf.rejected[version] = Rejection(shelf.available[version], reason)

    def _roll_back(self, shelf: Shelf, version: int, reason: str) -> None:
        shelf.rejected[version] = Rejection(shelf.loaded[version].stamp, reason)
        self.emit(ModelEvent("rolled_back", shelf.name, version, reason))
        self._let_go(shelf, version)
        self.wake()

    def _publish(self, shelf: Shelf, before: frozenset[int]) -> None:
        others = {name: serving for name, serving in self.serving.items() if name != shelf.name}
        serving = shelf.serving()
        self.serving = others | {shelf.name: serving} if serving else others
        if self._following and self._bounds.window_s > 0:
            shelf.begin_probation(before, self._clock() + self._bounds.window_s)

    def _drain(self, shelf: Shelf, model: LoadedModel) -> None:
        shelf.draining.append(model)
        self.emit(ModelEvent("draining", shelf.name, model.version))
        task = asyncio.create_task(self._retire(shelf, model))
        self._drains.add(task)
        task.add_done_callback(self._drains.discard)

    async def _retire(self, shelf: Shelf, model: LoadedModel) -> None:
        try:
            await model.retire()
        finally:
            shelf.draining.remove(model)
        if shelf.empty and self.shelves.get(shelf.name) is shelf:
            del self.shelves[shelf.name]
        self.emit(ModelEvent("unloaded", shelf.name, model.version))
        await asyncio.to_thread(memory.trim)

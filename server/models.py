"""The models that are served, and which version answers a request.

    tick: scan the folder ──▶ lifecycle (load, verify, swap, drain)       request: choose ──▶ lease ──▶ … ──▶ release
                                  └──▶ serving: name → versions, policy ────────────┘

The tick goes on while a version is being loaded, so a changed traffic policy never waits for one. Everything here lives
on one event loop; only folder scans, hashing and golden pictures go to a thread, and sessions to threads of their own.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from server.errors import Draining, InvalidInput, ModelNotFound, ModelNotReady, ShoalError, StartupError
from server.health_bounds import HealthBounds
from server.lifecycle import Lifecycle, ModelEvent
from server.repository import Load, Scan, VersionPolicy, scan, settle
from server.routing import route
from server.shelf import VersionState
from server.versions import LoadedModel, LoadOptions, load_version

# A version that comes up beside others takes a sixth of a core while it warms: loading is longer, and nobody notices.
REST: Final = 5.0

__all__ = ["LoadOptions", "LoadedModel", "ModelEvent", "Models", "ModelsOptions", "VersionState"]

Mode = Literal["none", "poll", "explicit"]


@dataclass(frozen=True, slots=True)
class ModelsOptions:
    """How models are found, loaded and replaced.

    Args:
        load: How a version is loaded.
        default_model: For requests that name none; empty for the only one, or the first by name.
        versions: Which versions are loaded where a model's policy file does not say.
        mode: "poll" follows the folder, "none" loads once, "explicit" loads what `Models.load` is called with.
        preload: With "explicit", the models to load at the start.
        poll_interval_s: How often the folder is looked at, and versions on probation are judged, in seconds.
        bounds: What a new version must keep to in its first minutes.
    """

    load: LoadOptions
    default_model: str = ""
    versions: VersionPolicy = field(default_factory=VersionPolicy)
    mode: Mode = "poll"
    preload: tuple[str, ...] = ()
    poll_interval_s: float = 0.5
    bounds: HealthBounds = field(default_factory=HealthBounds)


class Models:
    """Keeps the models of one folder loaded and lets requests choose among them.

    Args:
        folder: The models folder.
        options: How.
        on_event: Told of everything that happens, on the event loop.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        options: ModelsOptions,
        *,
        on_event: Callable[[ModelEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._options = options
        self._life = Lifecycle(self._load, folder, options.versions, options.bounds, on_event, clock)
        self._seen, self._believed = Scan(), Scan()
        self._active = set(options.preload)  # with "explicit", the models that were asked for
        self._ticker: asyncio.Task[None] | None = None
        self._closed = False

    async def start(self) -> None:
        """Loads what the folder holds, then follows it.

        Raises:
            StartupError: The folder cannot be read, or nothing in it can be served. One bad model or version among good
                ones is no error: its reason is in `index()`.
        """
        try:
            self._seen = self._believed = await asyncio.to_thread(scan, self._folder)
        except OSError as error:
            raise StartupError(
                f"expected a folder of models at {self._folder}, it cannot be read: {error.strerror};"
                " export a model there, or name another folder with --models"
            ) from error
        try:
            await self._load_first()
        except BaseException:  # a cancelled start must not leave sessions behind
            await self.close()
            raise
        self._life.follow()
        self._ticker = asyncio.create_task(self._tick())

    async def close(self) -> None:
        """Stops following the folder, abandons a load, answers what was accepted and frees every session."""
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        await self._life.close()

    @property
    def ready(self) -> bool:
        """Whether any model can answer."""
        return bool(self._life.serving) and not self._closed

    @property
    def default_model(self) -> str:
        """The model of requests that name none; empty where nothing is served."""
        return self._options.default_model or min(self._life.serving, default="")

    @property
    def loaded(self) -> tuple[LoadedModel, ...]:
        """Every version that can be chosen, by name and number."""
        models = [model for serving in self._life.serving.values() for model in serving.ready.values()]
        return tuple(sorted(models, key=lambda model: (model.name, model.version)))

    def choose(self, name: str, version: int | None = None, key: str = "") -> LoadedModel:
        """The model that answers a request. The caller takes a lease on it before it waits for anything.

        Args:
            name: The model's; empty for the default one.
            version: The version asked for; None for the one that the traffic policy chooses.
            key: What the traffic policy keeps together; empty to draw at random.

        Raises:
            ModelNotFound: There is no such model or version here.
            ModelNotReady: It is known, but not loaded (yet).
            Draining: The server is stopping.
        """
        name = name or self.default_model
        serving = self._life.serving.get(name)
        if serving is None or (version is not None and version not in serving.ready):
            raise self._missing(name, version)
        if version is not None:
            return serving.ready[version]
        if serving.only is not None:
            return serving.only
        return serving.ready[route(serving.policy, serving.ready.keys(), key, model=name).version]

    def shadow(self, answered: LoadedModel, key: str = "") -> LoadedModel | None:
        """The version that should compute a request too, unseen.

        Args:
            answered: The version that the traffic policy chose for it.
            key: The request's, as given to `choose`.

        Returns:
            A version for `server.shadow.Shadows.mirror`, or None.
        """
        serving = self._life.serving.get(answered.name)
        if serving is None or serving.policy.shadow is None:
            return None
        version = route(serving.policy, serving.ready.keys(), key, model=answered.name).shadow
        return serving.ready[version] if version is not None and version != answered.version else None

    def index(self) -> tuple[VersionState, ...]:
        """The state of every version of every model, with its reason."""
        return tuple(state for _, shelf in sorted(self._life.shelves.items()) for state in shelf.index())

    def reject(self, name: str, version: int, reason: str) -> None:
        """Takes back a version that another worker found wanting; see `Lifecycle.reject`."""
        self._life.reject(name, version, reason)

    async def load(self, name: str) -> None:
        """With mode "explicit": loads a model by its version policy, or takes in what has changed in its folder.

        Raises:
            InvalidInput: The folder decides, not the caller.
            ModelNotFound: It has no folder.
            ModelNotReady: A version could not be loaded; what was loaded before goes on.
        """
        self._only_explicit()
        self._seen = self._believed = await asyncio.to_thread(scan, self._folder, self._seen)
        if name not in self._seen.models or not self._seen.models[name].versions:
            raise self._missing(name, None)
        self._active.add(name)
        if name in self._life.shelves:
            self._life.shelves[name].rejected.clear()
        self._update()
        await self._life.settled()
        shelf = self._life.shelves.get(name)
        reasons = (
            [rejection.reason for rejection in shelf.rejected.values()] if shelf else ["it was unloaded meanwhile"]
        )
        if reasons:
            raise ModelNotReady(f"'{name}' could not be loaded: {'; '.join(reasons)}")

    async def unload(self, name: str) -> None:
        """With mode "explicit": lets every version of a model go. Returns once they are drained and freed.

        Raises:
            InvalidInput: The folder decides, not the caller.
            ModelNotFound: It is not loaded.
        """
        self._only_explicit()
        if name not in self._active:
            raise self._missing(name, None)
        self._active.discard(name)
        self._update()
        await self._life.settled()
        await self._life.drained()

    async def poll(self) -> None:
        """One tick: looks at the folder where it is followed, and judges the versions on probation."""
        if self._options.mode == "poll":
            await self._look()
        self._life.judge()

    async def settled(self) -> None:
        """Waits until there is nothing left to load or unload."""
        await self._life.settled()

    async def drained(self) -> None:
        """Waits until every version that was let go is closed."""
        await self._life.drained()

    async def _load_first(self) -> None:
        self._update()
        await self._life.settle()
        if not self._life.serving and (self._options.mode != "explicit" or self._options.preload):
            raise StartupError(self._nothing_to_serve())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._options.poll_interval_s)
            try:
                await self.poll()
            except Exception as error:  # noqa: BLE001 - one odd look at the folder must not be the last one
                self._life.report("looking at the models folder failed; the next look follows", error)

    async def _look(self) -> None:
        try:
            now = await asyncio.to_thread(scan, self._folder, self._seen)
        except OSError as error:
            # A mount that is gone for a moment must not unload anything.
            now = Scan(self._seen.models, {"": f"{self._folder} cannot be read: {error.strerror}"})
        for name, problem in now.problems.items():
            if self._seen.problems.get(name) != problem:
                self._life.emit(ModelEvent("scan", name, reason=problem))
        believed = settle(now, self._seen, self._believed)
        changed = believed.models != self._believed.models
        self._seen, self._believed = now, believed
        if changed:
            self._update()

    async def _load(self, folder: Path, step: Load) -> LoadedModel:
        options = self._options.load
        if self._life.serving:
            options = replace(options, executor=replace(options.executor, rest=REST))
        return await load_version(folder, step.stamp, options)

    def _update(self) -> None:
        models = self._believed.models
        if self._options.mode == "explicit":
            models = {name: model for name, model in models.items() if name in self._active}
        self._life.update(models)

    def _only_explicit(self) -> None:
        if self._options.mode != "explicit":
            raise InvalidInput(
                f"expected the model control mode 'explicit', the server runs with '{self._options.mode}':"
                " put the model into its folder or take it away, or start the server with the other mode"
            )

    def _missing(self, name: str, version: int | None) -> ShoalError:
        if self._closed:
            return Draining("the server is stopping; send the request to another one")
        states = [state for state in self.index() if state.name == name]
        if not states:
            known = ", ".join(f"'{served}'" for served in sorted(self._life.serving)) or "none yet"
            return ModelNotFound(f"expected one of the models served here ({known}), received '{name}'")
        if version is not None:
            states = [state for state in states if state.version == version]
        if not states or all(state.state == "unloaded" for state in states):
            ready = sorted(self._life.serving[name].ready) if name in self._life.serving else []
            return ModelNotFound(
                f"expected a loaded version of '{name}' ({', '.join(map(str, ready)) or 'none'}), received {version};"
                " ask for one of these, or have the version policy load it"
            )
        text = "; ".join(f"version {s.version} is {s.state}{f' ({s.reason})' if s.reason else ''}" for s in states)
        return ModelNotReady(f"'{name}' cannot answer now: {text}")

    def _nothing_to_serve(self) -> str:
        failed = [f"{state.name} {state.version}: {state.reason}" for state in self.index() if state.reason]
        if failed:
            return f"none of the models in {self._folder} can be served: {'; '.join(failed)}"
        return (
            f"expected <name>/<version>/model.onnx or a bundle in {self._folder}, found none;"
            " export a model there, or name another folder with --models"
        )

"""All that is known about one model: what lies on disk, what is loaded, what was refused and why.

A shelf decides and remembers; `server.models` does the loading and the waiting. Nothing here blocks or waits.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

from server.health_bounds import Health, HealthBounds, breach, mean_batch_s
from server.repository import ModelFolder, Stamp, Step, VersionPolicy, next_step
from server.routing import LATEST, PolicyError, TrafficPolicy, exposed, parse_policy
from server.versions import LoadedModel

State = Literal["loading", "ready", "draining", "unloaded", "failed"]


@dataclass(frozen=True, slots=True)
class VersionState:
    """One line of the index.

    Args:
        name: The model.
        version: Its version.
        state: "loading", "ready", "draining" (replaced, finishing what it holds), "unloaded" (on disk, not wanted by
            the version policy) or "failed".
        reason: Why it is in that state, or what is amiss though it is ready; empty where there is nothing to say.
        variant: The graph that runs; empty where none does.
    """

    name: str
    version: int
    state: State
    reason: str = ""
    variant: str = ""


class Rejection(NamedTuple):
    """A version that is not tried again while its folder stays the same."""

    stamp: Stamp
    reason: str


@dataclass(frozen=True, slots=True)
class Probation:
    """A version in its first minutes, and the one that comes back should it fail.

    Args:
        version: On probation.
        previous: Kept loaded meanwhile.
        until_s: When it ends, on the caller's clock.
        health: The version's requests when it began.
        batches: Rows in a batch → batches that the version had run when it began.
    """

    version: int
    previous: int
    until_s: float
    health: Health
    batches: Counter[int]


@dataclass(frozen=True, slots=True)
class Serving:
    """What requests for one model see: replaced as a whole, never changed.

    Args:
        policy: How requests are divided.
        ready: Version → model.
        only: Answers every request that names no version; None where the policy has to be asked each time.
    """

    policy: TrafficPolicy
    ready: Mapping[int, LoadedModel]
    only: LoadedModel | None


@dataclass(slots=True)
class Shelf:
    """One model.

    Args:
        name: Its name.
        default_policy: Which versions are loaded where its policy file does not say.
        folder: What lies on disk; None once the folder is gone, or while the model is not to be served.
        policy: The traffic policy in force.
        policy_text: The file it, or the problem, came from.
        policy_problem: Why the file was refused; empty where it was not.
        loaded: Version → model; these can be chosen.
        loading: The version that is being loaded.
        rejected: Version → why it is not tried again.
        draining: Versions that have been replaced and are not closed yet.
        probation: The version on probation.
    """

    name: str
    default_policy: VersionPolicy
    folder: ModelFolder | None = None
    policy: TrafficPolicy = LATEST
    policy_text: bytes | None = None
    policy_problem: str = ""
    loaded: dict[int, LoadedModel] = field(default_factory=dict)
    loading: int | None = None
    rejected: dict[int, Rejection] = field(default_factory=dict)
    draining: list[LoadedModel] = field(default_factory=list)
    probation: Probation | None = None

    @property
    def available(self) -> Mapping[int, Stamp]:
        """Version → stamp on disk."""
        return self.folder.versions if self.folder else {}

    @property
    def empty(self) -> bool:
        """Whether there is nothing left to remember."""
        return not (self.available or self.loaded or self.loading or self.draining)

    def see(self, folder: ModelFolder | None) -> bool:
        """Takes in what a scan found. Returns whether the policy file has changed."""
        self.folder = folder
        self.rejected = {version: seen for version, seen in self.rejected.items() if version in self.available}
        text = folder.policy if folder else None
        if text == self.policy_text:
            return False
        self.policy_text, self.policy_problem = text, ""
        try:
            self.policy = parse_policy(text) if text is not None else LATEST
        except PolicyError as error:
            self.policy_problem = str(error)
        return True

    def wanted(self) -> frozenset[int]:
        """The versions that should be loaded.

        Those that the version policy picks among the ones that are not known to be bad, those that the traffic policy
        names, and the one that stands by during a probation.
        """
        refused = {version for version, seen in self.rejected.items() if seen.stamp == self.available.get(version)}
        good = self.available.keys() - (refused - self.loaded.keys())
        standby = {self.probation.previous} & self.loaded.keys() if self.probation else set()
        return (self.policy.versions or self.default_policy).pick(good) | (self.policy.named & good) | standby

    def next_step(self) -> Step | None:
        """The next thing to do for this model."""
        loaded = {version: model.stamp for version, model in self.loaded.items()}
        rejected = {version: seen.stamp for version, seen in self.rejected.items()}
        return next_step(self.available, loaded, self.wanted(), rejected, present=self.folder is not None)

    def serving(self) -> Serving | None:
        """What requests should see now; None while nothing is loaded."""
        if not self.loaded:
            return None
        policy = self.policy
        latest = max(self.loaded)
        default = policy.default if policy.default in self.loaded else latest
        divided = policy.canary or policy.ab or policy.shadow
        assert default is not None
        return Serving(policy, dict(self.loaded), None if divided else self.loaded[default])

    def exposed(self) -> frozenset[int]:
        """The versions whose answers callers get."""
        return exposed(self.policy, self.loaded) if self.loaded else frozenset()

    def begin_probation(self, before: frozenset[int], until_s: float) -> None:
        """Puts a version that callers meet for the first time on probation.

        Args:
            before: What `exposed` said before the change.
            until_s: When probation ends.
        """
        newcomers, standby = self.exposed() - before, before & self.loaded.keys()
        if not newcomers or not standby:
            return
        newcomer = max(newcomers)
        model = self.loaded[newcomer]
        self.probation = Probation(newcomer, max(standby), until_s, replace(model.health), _batches(model))

    def end_probation_of(self, version: int) -> None:
        """Ends the probation that a version has a part in, because it is replaced or let go."""
        if self.probation is not None and version in (self.probation.version, self.probation.previous):
            self.probation = None

    def judge(self, bounds: HealthBounds) -> str | None:
        """Why the version on probation (there has to be one) must go back to the one before; None if it need not."""
        trial = self.probation
        assert trial is not None
        new, old = self.loaded[trial.version], self.loaded[trial.previous]
        health = Health(new.health.requests - trial.health.requests, new.health.errors - trial.health.errors)
        batches = _batches(new) - trial.batches
        new_s, old_s = mean_batch_s(batches, new.executor.cost_s), mean_batch_s(batches, old.executor.cost_s)
        return breach(bounds, health, old.health, new_s, old_s)

    def index(self) -> list[VersionState]:
        """The state of each version that is on disk, loaded or on its way out."""
        draining = {model.version: model for model in self.draining}
        versions = self.available.keys() | self.loaded.keys() | draining.keys() | ({self.loading} - {None})
        return [self._state(version, draining) for version in sorted(v for v in versions if v is not None)]

    def _state(self, version: int, draining: Mapping[int, LoadedModel]) -> VersionState:
        refused = self.rejected[version].reason if version in self.rejected else ""
        if version in self.loaded:
            model = self.loaded[version]
            reasons = (self._trial(version), model.note, refused, self.policy_problem)
            return VersionState(self.name, version, "ready", "; ".join(filter(None, reasons)), model.variant)
        if version == self.loading:
            return VersionState(self.name, version, "loading")
        if refused:
            return VersionState(self.name, version, "failed", refused)
        if version in draining:
            return VersionState(self.name, version, "draining", "replaced", draining[version].variant)
        policy = self.policy.versions or self.default_policy
        return VersionState(self.name, version, "unloaded", f"not wanted by the version policy '{policy}'")

    def _trial(self, version: int) -> str:
        trial = self.probation
        if trial is not None and version == trial.version:
            return f"on probation, version {trial.previous} stands by"
        return f"stands by while version {trial.version} is on probation" if trial and version == trial.previous else ""


def _batches(model: LoadedModel) -> Counter[int]:
    return Counter(model.batcher.statistics().batch_rows)

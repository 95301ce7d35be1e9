"""One version of a model in memory, and how it gets there.

    folder ─▶ check hashes ─▶ load the variant, or all for `auto` ─▶ warm and measure ─▶ replay golden ─▶ LoadedModel

Everything slow happens off the event loop: hashing and decoding in a thread, sessions on their executors' own threads.
Whatever a load has opened is closed again when it fails or is cancelled.
"""

import asyncio
import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from protos.bundle_pb2 import Manifest
from server.batcher import Batcher, BatcherOptions
from server.bundle import Bundle, VariantFile, manifest_specs, read_bundle
from server.errors import BundleError, Draining, InferenceFailed, ShoalError
from server.executor import Executor, ExecutorOptions, rivals
from server.explanation import Explainer, explainer_of
from server.golden import Golden, check_answers, decode_golden, read_golden, replay
from server.health_bounds import Health
from server.images import ImageSpec
from server.repository import Stamp
from server.tensors import TensorSpec

AUTO: Final = "auto"


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How versions are loaded.

    Args:
        executor: For each version's session.
        batcher: For each version's queue.
        variant: A variant's name, or "auto" for the fastest one on this machine that answers its golden pictures
            rightly.
        trusted_keys: Public keys, one of which must have signed a bundle's manifest; None to ask for no signature.
    """

    executor: ExecutorOptions
    batcher: BatcherOptions
    variant: str = AUTO
    trusted_keys: Path | None = None


@dataclass(eq=False, slots=True, weakref_slot=True)
class LoadedModel:
    """A version that can answer. Lives on one event loop.

    A request takes a lease in the same breath as it chooses the model (no `await` between the two) and holds it until
    it has its answer: the model is closed only when nobody holds one.

    Args:
        bundle: What it was loaded from.
        variant: Which of the bundle's graphs runs.
        executor: Runs it.
        batcher: Takes its requests.
        stamp: Of the folder when it was loaded.
        loaded_at: Seconds since the epoch.
        note: Why a variant was passed over; empty where none was.
        health: The requests it has finished.
        explainer: Computes class-activation maps, loaded with the first one; None where the bundle brings none.
    """

    bundle: Bundle
    variant: str
    executor: Executor
    batcher: Batcher
    stamp: Stamp = ()
    loaded_at: float = field(default_factory=time.time)
    note: str = ""
    health: Health = field(default_factory=Health)
    explainer: Explainer | None = None
    _leases: int = 0
    _closed: bool = False
    _unused: asyncio.Event | None = None

    @property
    def name(self) -> str:
        """The model's name."""
        return self.bundle.name

    @property
    def version(self) -> int:
        """The version's number."""
        return self.bundle.version

    @property
    def labels(self) -> tuple[str, ...]:
        """`labels[i]` names class i; empty where unknown."""
        return self.bundle.labels

    @property
    def image(self) -> ImageSpec | None:
        """The geometry of the image input, or None where encoded pictures cannot be taken."""
        return self.bundle.image

    @property
    def image_input(self) -> str:
        """The name of the input that pictures go to; empty where there is none."""
        return self.bundle.image_input

    @property
    def manifest(self) -> Manifest | None:
        """What export wrote, or None for a plain `model.onnx`."""
        return self.bundle.manifest

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers that serve it, best first."""
        return self.executor.providers

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What the graph takes."""
        return self.executor.inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What the graph answers."""
        return self.executor.outputs

    @property
    def closed(self) -> bool:
        """Whether it was let go and freed."""
        return self._closed

    @property
    def in_flight(self) -> int:
        """Leases held now."""
        return self._leases

    def lease(self) -> "Lease":
        """Keeps the model open while a request uses it: `with model.lease(): …`.

        An `InferenceFailed` that leaves the block counts against the version's health, an answer counts for it, and any
        other error says nothing about it.

        Raises:
            Draining: It has been closed: its chooser waited before taking the lease.
        """
        return Lease(self)

    async def retire(self) -> None:
        """Waits until nobody holds a lease, answers what is queued, and frees the session.

        The caller has made sure that nobody can choose it any more.
        """
        if self._leases:
            self._unused = asyncio.Event()
            await self._unused.wait()
        self._closed = True
        await self.batcher.close()
        await self.executor.close()
        if self.explainer is not None:
            await self.explainer.close()

    def _enter(self) -> None:
        if self._closed:
            raise Draining(f"version {self.version} of '{self.name}' has just been replaced; send the request again")
        self._leases += 1

    def _exit(self, error: type[BaseException] | None) -> None:
        self._leases -= 1
        if error is None or issubclass(error, InferenceFailed):
            self.health.requests += 1
            self.health.errors += error is not None
        if not self._leases and self._unused is not None:
            self._unused.set()


@dataclass(slots=True)
class Lease:
    """See `LoadedModel.lease`."""

    model: LoadedModel

    def __enter__(self) -> Self:
        self.model._enter()  # noqa: SLF001 - one object in two parts
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.model._exit(kind)  # noqa: SLF001


async def load_version(folder: Path, stamp: Stamp, options: LoadOptions) -> LoadedModel:
    """Brings up one version, ready to answer.

    Args:
        folder: `<models>/<name>/<version>`.
        stamp: Of the folder, to be kept with the model.
        options: How.

    Raises:
        BundleError: The bundle is damaged, or no allowed variant of it answers rightly here.
        StartupError: The execution providers asked for are not there.
    """
    bundle, golden, rows = await asyncio.to_thread(_read, folder, options.trusted_keys)
    wanted = bundle.variants if options.variant == AUTO else (bundle.variant(options.variant),)
    trial = _Trial(bundle, golden, rows, options.executor)
    variant, executor = await trial.run(wanted)
    return LoadedModel(
        bundle,
        variant.name,
        executor,
        Batcher(executor, options.batcher),
        stamp,
        note="; ".join(trial.refusals),
        explainer=explainer_of(bundle),
    )


def _read(folder: Path, trusted_keys: Path | None) -> tuple[Bundle, Golden | None, NDArray[np.uint8] | None]:
    bundle = read_bundle(folder, trusted_keys)
    golden = read_golden(bundle)
    return bundle, golden, decode_golden(bundle, golden) if golden else None


@dataclass(slots=True)
class _Trial:
    """Finds the fastest variant that loads, fits its manifest and answers the golden pictures rightly.

    Where several providers compute on the same cores, each variant is tried on each of them.
    """

    bundle: Bundle
    golden: Golden | None
    rows: NDArray[np.uint8] | None
    options: ExecutorOptions
    refusals: list[str] = field(default_factory=list)

    async def run(self, variants: Sequence[VariantFile]) -> tuple[VariantFile, Executor]:
        started: list[tuple[VariantFile, Executor]] = []
        winner: Executor | None = None
        try:
            candidates = list(itertools.product(variants, rivals(self.options.providers)))
            for variant, providers in candidates:
                await self._start(variant, providers, started, alone=len(candidates) == 1)
            for variant, executor in sorted(started, key=lambda pair: _cost_per_row_s(pair[1])):
                if await self._answers_rightly(variant, executor):
                    await executor.visit_sizes()
                    winner = executor
                    return variant, executor
            raise BundleError("; ".join(self.refusals))
        finally:
            for _, executor in started:
                if executor is not winner:
                    await executor.close()

    async def _start(
        self,
        variant: VariantFile,
        providers: tuple[str, ...],
        started: list[tuple[VariantFile, Executor]],
        *,
        alone: bool,
    ) -> None:
        if any(one is variant and executor.providers[:1] == providers[:1] for one, executor in started):
            return  # the provider before this one could not serve, and this one has taken its place
        try:
            executor = await Executor.load(variant.path, replace(self.options, providers=providers))
            started.append((variant, executor))
            _check_interface(self.bundle, executor)
            await executor.warm()
        except Exception as error:
            # ONNX Runtime raises classes of its own for a graph that it cannot load or run. Another variant may do.
            if alone:
                raise
            where = f" on {providers[0]}" if len(self.options.providers) > 1 else ""
            self.refusals.append(f"variant '{variant.name}'{where} refused: {spell_error(error)}")
            if started and started[-1][0] is variant:
                await started.pop()[1].close()

    async def _answers_rightly(self, variant: VariantFile, executor: Executor) -> bool:
        if self.golden is None or self.rows is None:
            return True
        try:
            check_answers(
                self.bundle, variant, self.golden, await replay(executor, self.bundle, self.golden, self.rows)
            )
        except BundleError as error:
            self.refusals.append(str(error))
            return False
        return True


def spell_error(error: Exception) -> str:
    """One line for an error that may come from anywhere: ours as they are, others with their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ShoalError) else f"{type(error).__name__}: {text}"


def _cost_per_row_s(executor: Executor) -> float:
    """The measured cost of a row in the largest batch: what the version costs when it matters, under load."""
    if not executor.costs:  # it cannot run on zeros, so nothing is known: any that is known goes first
        return float("inf")
    rows = max(executor.costs)
    return executor.costs[rows] / rows


def _check_interface(bundle: Bundle, executor: Executor) -> None:
    if bundle.manifest is None:
        return
    _check_tensors(bundle, "inputs", manifest_specs(bundle.manifest.inputs), executor.inputs)
    _check_tensors(bundle, "outputs", manifest_specs(bundle.manifest.outputs), executor.outputs)


def _check_tensors(bundle: Bundle, what: str, expected: Iterable[TensorSpec], received: Iterable[TensorSpec]) -> None:
    there = {spec.name: spec for spec in received}
    for spec in expected:
        found = there.get(spec.name)
        if found is None or found.datatype != spec.datatype or not _same_shape(found.shape, spec.shape):
            raise BundleError(
                f"expected {what} {spec.name} {spec.datatype}{list(spec.shape)} by the manifest of {bundle.folder},"
                f" the graph has {', '.join(f'{s.name} {s.datatype}{list(s.shape)}' for s in there.values())};"
                " export the bundle again"
            )


def _same_shape(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return len(one) == len(other) and all(a == b or -1 in (a, b) for a, b in zip(one, other, strict=True))

"""Where in a picture a class was seen: the class-activation map of a bundle that brings one.

    first request ─▶ the file's sha256 again ─▶ a session on a thread of its own
    each request  ─▶ room? ─▶ its turn ─▶ probabilities, maps ─▶ one class's map, 0..1
                       │         └ DeadlineExceeded
                       └ Overloaded

Zhou et al., "Learning Deep Features for Discriminative Localization", CVPR 2016 (https://arxiv.org/abs/1512.04150): a
network that ends in global average pooling and one dense layer has a score for every class at every place, the dense
layer applied there instead of to the mean. The scores' mean over all places is the class's logit.

The graph is no variant that answers requests, and shares nothing with the one that does: not its queue, thread or
batches. One picture is computed at a time, on the CPU, so that maps take one core at most and no accelerator's memory.
The thread keeps its normal priority: held back by the scheduler, it would hold back whoever waits for the interpreter's
lock that it has.
"""

import asyncio
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.bundle import Bundle, VariantFile
from server.deadline import Deadline
from server.decode_pool import DecodePool, Encoded
from server.errors import (
    BundleError,
    DeadlineExceeded,
    InvalidInput,
    ModelNotReady,
    NoActivationMap,
    Overloaded,
    StartupError,
)
from server.executor import Executor, ExecutorOptions
from server.tensors import Array, Timing

METHOD: Final = "activation-map"
CAM: Final = "cam"  # as a manifest names it
MAX_UNDER_WAY: Final = 4  # of one version: a map is for people, who do not come in crowds
_OPTIONS: Final = ExecutorOptions(providers=("cpu",), intra_op_threads=1, max_batch_rows=1)
_US: Final = 1e6


@dataclass(slots=True)
class ExplainRequest:
    """A request for a map.

    Args:
        image: The encoded picture.
        model: The model's name; empty for the server's default.
        version: The version asked for, or None for the one that the traffic policy chooses.
        wanted: A label, or a class's number; None for the most probable class.
        deadline: When the answer stops being worth anything; None to wait as long as it takes.
        protocol: The wire format it came by, for metrics.
    """

    image: Encoded
    model: str = ""
    version: int | None = None
    wanted: str | int | None = None
    deadline: Deadline | None = None
    protocol: str = ""


@dataclass(frozen=True, slots=True)
class Explanation:
    """The map of one class over one picture.

    Args:
        model: The model that answered.
        version: Its version.
        index: The class.
        label: Its name; its number where the model has no names.
        probability: Of the class, by the float32 graph that the map is of; the variant that serves may differ a little.
        heat: `float32[height, width]` from 0 to 1, see `heat_of`. It lies over the whole picture, stretched as the
            picture is.
        timing: Where the time went.
    """

    model: str
    version: int
    index: int
    label: str
    probability: float
    heat: NDArray[np.float32]
    timing: Timing


@dataclass(frozen=True, slots=True)
class Maps:
    """What the graph says of one picture.

    Args:
        probabilities: `float32[classes]`.
        scores: `float32[height, width, classes]`; the mean over height and width is the class's logit.
        queue_s: Seconds until its turn came, the graph's loading included.
        infer_s: Seconds that it ran.
    """

    probabilities: Array
    scores: Array
    queue_s: float
    infer_s: float


class Explainer:
    """The graph of one loaded version, loaded when it is first needed. Lives on one event loop.

    Whoever calls `maps` holds a lease on the version, so that `close` comes after.

    Args:
        bundle: What the version was loaded from; it has an explanation.
        clock: Seconds on the deadlines' clock.
    """

    def __init__(self, bundle: Bundle, *, clock: Callable[[], float] = time.monotonic) -> None:
        assert bundle.explanation is not None
        assert bundle.manifest is not None
        self._bundle = bundle
        self._graph: VariantFile = bundle.explanation
        self._output = bundle.manifest.explanation.output.name
        self._probabilities = bundle.manifest.outputs[0].name
        self._clock = clock
        self._executor: Executor | None = None
        self._turn = asyncio.Lock()
        self._under_way = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a map, -1 where the manifest leaves it open."""
        assert self._bundle.manifest is not None
        _, height, width, _ = self._bundle.manifest.explanation.output.shape
        return height, width

    @property
    def loaded(self) -> bool:
        """Whether the graph is in memory."""
        return self._executor is not None

    async def maps(self, rows: NDArray[np.uint8], deadline: Deadline | None = None) -> Maps:
        """Computes the maps of all classes over one picture.

        Args:
            rows: `uint8[1, height, width, channels]`.
            deadline: A picture whose turn comes later is not computed.

        Raises:
            Overloaded: Enough others are waiting.
            DeadlineExceeded: Its turn came too late.
            ModelNotReady: The graph is not the one that was verified, or cannot be loaded.
            Exception: Whatever ONNX Runtime raises.
        """
        came_s = self._clock()
        if self._under_way >= MAX_UNDER_WAY:
            raise self._refusal()
        self._under_way += 1
        try:
            async with self._turn:
                executor = self._executor or await self._load()
                began_s = self._clock()
                if deadline is not None and deadline.remaining_s(began_s) < 0:
                    raise DeadlineExceeded("the deadline passed before the activation map could be computed")
                outputs = await executor.run({self._bundle.image_input: rows})
        finally:
            self._under_way -= 1
        probabilities, scores = outputs[self._probabilities][0], outputs[self._output][0]
        return Maps(probabilities, scores, began_s - came_s, self._clock() - began_s)

    async def close(self) -> None:
        """Frees the graph, where it was loaded."""
        executor, self._executor = self._executor, None
        if executor is not None:
            await executor.close()

    async def _load(self) -> Executor:
        try:
            await asyncio.to_thread(_check_digest, self._graph)
            executor = await Executor.load(self._graph.path, _OPTIONS)
        except StartupError as error:
            raise ModelNotReady(f"the activation map of {self._spelled} cannot be loaded: {error}") from error
        there = {spec.name for spec in executor.outputs}
        if not {self._probabilities, self._output} <= there:
            await executor.close()
            raise ModelNotReady(
                f"expected the outputs '{self._probabilities}' and '{self._output}' of {self._graph.path.name} of"
                f" {self._spelled} by its manifest, the graph has {', '.join(sorted(there))}; export the bundle again"
            )
        self._executor = executor
        return executor

    def _refusal(self) -> Overloaded:
        run_s = self._executor.cost_s(1) if self._executor is not None else 0.0
        return Overloaded(
            f"expected at most {MAX_UNDER_WAY} requests at a time for activation maps of {self._spelled}, received one"
            " more; send it again later",
            retry_after_s=run_s * self._under_way,
            reason="explain",
        )

    @property
    def _spelled(self) -> str:
        return f"'{self._bundle.name}' version {self._bundle.version}"


def explainer_of(bundle: Bundle) -> Explainer | None:
    """What computes a version's maps, not yet loaded; None where its bundle brings none that is understood here.

    Args:
        bundle: What the version is loaded from.
    """
    if bundle.explanation is None or bundle.manifest is None or bundle.image is None:
        return None
    told = bundle.manifest.explanation
    rank = 4  # batch, height, width, classes
    return Explainer(bundle) if told.method == CAM and len(told.output.shape) == rank else None


async def explain(
    bundle: Bundle, explainer: Explainer | None, request: ExplainRequest, pool: DecodePool, clock: Callable[[], float]
) -> Explanation:
    """Answers one request for a map.

    Args:
        bundle: Of the version that was chosen, on which the caller holds a lease.
        explainer: Of that version.
        request: What is asked.
        pool: Decodes the picture.
        clock: Seconds on the deadlines' clock.

    Raises:
        NoActivationMap: The version has none.
        InvalidInput: There is no such class.
        ShoalError: See `DecodePool.rows` and `Explainer.maps`.
    """
    if explainer is None or bundle.image is None:
        raise NoActivationMap(
            "expected a model whose network ends in global average pooling and one dense layer;"
            f" '{bundle.name}' version {bundle.version} brings no activation map. /model-info says whether a version"
            " does; any other can be asked by occlusion, as the page at / asks it: hide the places one after the other"
        )
    began_s = clock()
    rows = await pool.rows((request.image,), bundle.image, request.deadline)
    decode_s = clock() - began_s
    maps = await explainer.maps(rows, request.deadline)
    index = find_class(request.wanted, bundle, maps.probabilities)
    timing = Timing(round(decode_s * _US), round(maps.queue_s * _US), round(maps.infer_s * _US))
    label = bundle.labels[index] if bundle.labels else str(index)
    probability = float(maps.probabilities[index])
    return Explanation(bundle.name, bundle.version, index, label, probability, heat_of(maps.scores[..., index]), timing)


def heat_of(scores: Array) -> NDArray[np.float32]:
    """One class's scores as shares of the strongest place: what is below 0 becomes 0, then the least 0 and the most 1.

    Args:
        scores: `float32[height, width]`, what each place says for the class.

    Returns:
        `float32[height, width]` from 0 to 1; all 0 where no place says more for the class than any other, or none says
        anything for it.
    """
    positive = np.maximum(scores, np.float32(0))
    least, most = positive.min(), positive.max()
    if most <= least:
        return np.zeros_like(positive)
    return np.asarray((positive - least) / (most - least), np.float32)


def find_class(wanted: str | int | None, bundle: Bundle, probabilities: Array) -> int:
    """The class that is meant.

    Args:
        wanted: A label, or a class's number; a text that is both is the label. None for the most probable class.
        bundle: Whose labels.
        probabilities: `float32[classes]`.

    Raises:
        InvalidInput: There is no such class.
    """
    if wanted is None:
        return int(probabilities.argmax())
    if isinstance(wanted, str) and wanted in bundle.labels:
        return bundle.labels.index(wanted)
    text, count = str(wanted), len(probabilities)
    if text.isascii() and text.isdigit() and int(text[:9]) < count:
        return int(text[:9])
    known = f"a label of '{bundle.name}' (such as {bundle.labels[0]!r}) or " if bundle.labels else ""
    raise InvalidInput(
        f"expected class as {known}a number from 0 to {count - 1}, received {text[:40]!r}; /model-info lists the labels"
    )


def _check_digest(graph: VariantFile) -> None:
    # It was right when the version was loaded, which may be days ago.
    try:
        with graph.path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BundleError(f"{graph.path} cannot be read: {error.strerror}; copy or export the bundle again") from error
    if digest != graph.sha256:
        raise BundleError(
            f"expected sha256 {graph.sha256} of {graph.path}, found {digest}: it is not the file that was verified;"
            " copy or export the bundle again"
        )

"""The one door that every transport uses.

InferRequest ──choose a version──▶ lease ──pictures or numbers to rows──▶ admit ──batch──▶ InferResponse
               │                          │                               │        └ Overloaded, DeadlineExceeded,
               │                          │                               │          InferenceFailed
               │                          │                               └ Overloaded, DeadlineExceeded
               │                          └ InvalidInput, UnsupportedImage, Overloaded
               └ ModelNotFound, ModelNotReady
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from server.admission import Admission
from server.deadline import Deadline
from server.decode_pool import DecodePool
from server.descriptions import Health, ModelDescription
from server.errors import InvalidInput, ModelNotFound, PredictionNotFound, Unavailable
from server.explanation import ExplainRequest, Explanation, explain
from server.feedback import Feedback, FeedbackDesk, Taken
from server.golden import read_golden
from server.metrics import OK, Metrics, RequestTotals, ServedVersion
from server.payload import check_outputs, count_rows, pictures_of, spell_inputs, tensors_of
from server.predictions.observer import Observer
from server.request_log import RequestLog
from server.response_cache import ResponseCache, key_of
from server.shadow import Shadows
from server.shelf import VersionState
from server.tensors import AT_ONCE, Array, InferRequest, InferResponse, Timing
from server.versions import LoadedModel

Finished = Callable[[InferRequest, str, int, str, float, Timing | None], None]

_US: Final = 1e6


class ModelSource(Protocol):
    """Where models come from; `server.models.Models` is one."""

    @property
    def ready(self) -> bool:
        """Whether any model can answer."""

    @property
    def default_model(self) -> str:
        """The model of requests that name none."""

    @property
    def loaded(self) -> Sequence[LoadedModel]:
        """Every version that can be chosen."""

    def choose(self, name: str, version: int | None = None, key: str = "") -> LoadedModel:
        """The version that answers a request."""

    def shadow(self, answered: LoadedModel, key: str = "") -> LoadedModel | None:
        """The version that should compute an answered request too, unseen."""

    def index(self) -> Sequence[VersionState]:
        """The state of every version."""


class ModelControl(Protocol):
    """Loads and unloads models when a request says so; `server.models.Models` is one."""

    async def load(self, name: str) -> None:
        """Loads a model, or takes in what has changed in its folder."""

    async def unload(self, name: str) -> None:
        """Lets every version of a model go."""


class Service:
    """Answers requests with the models of one source.

    Args:
        models: Where models come from.
        pool: Decodes pictures.
        admission: Refuses what would be late.
        metrics: Counts.
        shadows: Compares versions that compute requests unseen.
        budget_s: Of a request that has no deadline, in seconds.
        cache: Remembers answers; None to compute every one.
        control: Loads and unloads models by request; None where a request may not.
        alone: Whether this process is the whole server, so that what a request sets holds for all of them.
        clock: Seconds on the deadlines' clock.
    """

    def __init__(
        self,
        models: ModelSource,
        pool: DecodePool,
        *,
        admission: Admission,
        metrics: Metrics,
        shadows: Shadows,
        budget_s: float,
        cache: ResponseCache | None = None,
        control: ModelControl | None = None,
        alone: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._models = models
        self._pool = pool
        self._admission = admission
        self._metrics = metrics
        self._shadows = shadows
        self._budget_s = budget_s
        self._cache = cache
        self._control = control
        self.alone = alone
        self._clock = clock
        self._started_s = clock()
        self.draining = False
        self.observer: Observer | None = None  # sees every answer; for the prediction log and drift
        self.feedback: FeedbackDesk | None = None
        self.log = RequestLog()
        self.finished: tuple[Finished, ...] = ()  # see every request that is over; for traces and the log of slow ones
        self.traced = False  # whether transports keep the trace that a request is part of

    async def infer(self, request: InferRequest) -> InferResponse:
        """Answers one request.

        Args:
            request: Its payload, and what it wants of whom by when.

        Returns:
            The outputs of its own rows, all of one version.

        Raises:
            ShoalError: See this module's picture; `server.errors` tells the classes apart.
        """
        now_s = self._clock()
        name, version, outcome, timing = "", 0, OK, None
        try:
            model = self._models.choose(request.model, request.version, request.key)
            name, version = model.bundle.name, model.bundle.version
            with model.lease():
                response = await self._answer(request, model, now_s)
            timing = response.timing
        except BaseException as error:
            outcome = self._metrics.note(error)
            self.log.failed(error, request, name, version)
            raise
        else:
            return response
        finally:
            took_s = self._clock() - now_s
            self._metrics.record(request.protocol, name, version, outcome, took_s, timing)
            for finished in self.finished:
                finished(request, name, version, outcome, took_s, timing)

    async def explain(self, request: ExplainRequest) -> Explanation:
        """Answers one request for a class-activation map.

        Args:
            request: The picture, and which class of which model.

        Raises:
            ShoalError: See `server.explanation.explain`, and `infer` for the choice of a version.
        """
        now_s = self._clock()
        name, version, outcome, timing = "", 0, OK, None
        try:
            model = self._models.choose(request.model, request.version)
            name, version = model.name, model.version
            with model.lease():
                explanation = await explain(model.bundle, model.explainer, request, self._pool, self._clock)
            timing = explanation.timing
        except BaseException as error:
            outcome = self._metrics.note(error)
            raise
        else:
            return explanation
        finally:
            self._metrics.record(request.protocol, name, version, outcome, self._clock() - now_s, timing)

    def describe(self, name: str = "", version: int | None = None) -> ModelDescription:
        """What is known of a version.

        Args:
            name: The model's; empty for the default one.
            version: The version; None for the one that would answer.

        Raises:
            ModelNotFound: There is no such model or version.
            ModelNotReady: It is not loaded.
        """
        model = self._models.choose(name, version)
        return ModelDescription(
            name=model.name,
            version=model.version,
            variant=model.variant,
            providers=tuple(model.executor.providers),
            labels=model.labels,
            image=model.image,
            inputs=model.inputs,
            outputs=model.outputs,
            costs_s=dict(model.executor.costs),
            max_batch_rows=model.executor.max_batch_rows,
            manifest=model.bundle.manifest,
            map_shape=model.explainer.shape if model.explainer is not None else None,
        )

    async def example(self, name: str = "", version: int | None = None, number: int = 0) -> bytes:
        """One of the encoded pictures that a bundle brings with it.

        Args:
            name: The model's; empty for the default one.
            version: The version; None for the one that would answer.
            number: Which of them; any number will do.

        Raises:
            ModelNotFound: There is no such model or version, or its bundle has no pictures.
        """
        model = self._models.choose(name, version)
        with model.lease():
            golden = await asyncio.to_thread(read_golden, model.bundle)
        if golden is None or not golden.encoded:
            raise ModelNotFound(f"the bundle of '{model.name}' version {model.version} brings no pictures to try")
        return golden.encoded[number % len(golden.encoded)]

    def index(self) -> Sequence[VersionState]:
        """The state of every version of every model."""
        return self._models.index()

    async def load(self, name: str) -> None:
        """Loads a model, or takes in what has changed in its folder.

        Args:
            name: The model's.

        Raises:
            Unavailable: The server is not set up for it.
            ModelNotFound: It has no folder.
            ModelNotReady: A version could not be loaded.
        """
        await self._controller().load(name)

    async def unload(self, name: str) -> None:
        """Lets every version of a model go.

        Args:
            name: The model's.

        Raises:
            Unavailable: The server is not set up for it.
            ModelNotFound: It is not loaded.
        """
        await self._controller().unload(name)

    async def take_feedback(self, given: Sequence[Feedback]) -> Taken:
        """Takes in what callers say was right.

        Args:
            given: One or several.

        Raises:
            PredictionNotFound: Predictions are not logged here.
            Unavailable: Their database does not answer.
            InvalidInput: A label is none of the version's.
        """
        if self.feedback is None:
            raise PredictionNotFound(
                "feedback is on predictions that were logged, and this server logs none; it takes --prediction-log"
            )
        return await self.feedback.take(given)

    def served(self) -> list[ServedVersion]:
        """Every loaded version, for metrics."""
        return [_served(model) for model in self._models.loaded]

    def statistics(self, name: str = "", version: int | None = None) -> list[tuple[ServedVersion, RequestTotals]]:
        """What loaded versions have done so far, in this process.

        Args:
            name: The model's; empty for all models.
            version: The version; None for all of the model's.

        Raises:
            ModelNotFound: There is no such model or version.
            ModelNotReady: It is not loaded.
        """
        if name:
            self._models.choose(name, version)
        return [
            (_served(model), self._metrics.totals(model.name, model.version))
            for model in self._models.loaded
            if name in ("", model.name) and version in (None, model.version)
        ]

    def health(self) -> Health:
        """How the server is."""
        ready = self._models.ready and not self.draining
        status = "draining" if self.draining else "ok" if ready else "loading"
        name = self._models.default_model
        versions = [model.version for model in self._models.loaded if model.name == name]
        return Health(status, ready, self._clock() - self._started_s, name, max(versions, default=None))

    def _controller(self) -> ModelControl:
        if self._control is None:
            raise Unavailable(
                "models are neither loaded nor unloaded by request here: that takes --model-control explicit and"
                " --workers 1; this server loads what its models folder and settings say"
            )
        return self._control

    async def _answer(self, request: InferRequest, model: LoadedModel, now_s: float) -> InferResponse:
        deadline = request.deadline or Deadline(now_s + self._budget_s)
        check_outputs(request, model)
        inputs: Mapping[str, Array]
        images = request.images or pictures_of(request, model)
        key = None if self._cache is None else key_of(model, images, request)
        if key is not None and self._cache is not None:
            known = self._cache.find(key)
            if known is not None:
                if self.observer is not None:
                    self.observer.answered(request, model, images, {}, known, self._clock() - now_s)
                return _response(model, request, known, AT_ONCE)
        if images:
            inputs = await self._decode(images, request, model, deadline, now_s)
            decode_s = self._clock() - now_s
        else:
            inputs, decode_s = tensors_of(request, model), 0.0
            self._admission.admit(model.batcher, count_rows(inputs, model), deadline, now_s, priority=request.priority)
        answer = await model.batcher.submit(inputs, deadline=deadline, priority=request.priority)
        shadow = self._models.shadow(model, request.key)
        if shadow is not None:
            self._shadows.mirror(shadow, model.version, inputs, answer.outputs)
        timing = Timing(round(decode_s * _US), round(answer.queue_s * _US), round(answer.infer_s * _US))
        if key is not None and self._cache is not None:
            self._cache.keep(key, answer.outputs)
        if self.observer is not None:
            self.observer.answered(request, model, images, inputs, answer.outputs, self._clock() - now_s)
        return _response(model, request, answer.outputs, timing)

    async def _decode(
        self,
        images: tuple[bytes | memoryview, ...],
        request: InferRequest,
        model: LoadedModel,
        deadline: Deadline,
        now_s: float,
    ) -> dict[str, Array]:
        if model.image is None:
            raise InvalidInput(
                f"expected tensors for '{model.name}' ({spell_inputs(model)}), received pictures; only a bundle whose"
                " manifest has preprocessing takes pictures"
            )
        # Before decoding: what is refused should not have cost its decoding first.
        self._admission.admit(model.batcher, len(images), deadline, now_s, priority=request.priority)
        return {model.bundle.image_input: await self._pool.rows(images, model.image, deadline)}


def _response(model: LoadedModel, request: InferRequest, outputs: Mapping[str, Array], timing: Timing) -> InferResponse:
    if request.outputs:
        outputs = {name: outputs[name] for name in request.outputs}
    bundle = model.bundle
    return InferResponse(bundle.name, bundle.version, model.variant, outputs, timing, bundle.labels)


def _served(model: LoadedModel) -> ServedVersion:
    return ServedVersion(
        model.name,
        model.version,
        model.variant,
        tuple(model.executor.providers),
        model.batcher.statistics(),
        dict(model.executor.costs),
    )

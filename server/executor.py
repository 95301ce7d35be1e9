"""One ONNX Runtime session on one thread of its own.

    batcher ──run(inputs)──▶ SimpleQueue ──▶ thread: session.run ──call_soon_threadsafe──▶ batcher
                  │                                └ seconds ──▶ cost model
                  └─ a short batch, the thread is idle, the first in this turn of the loop: session.run here and now

The event loop itself runs what is so short that a thread gains nothing (`inline_s`), once in a turn however many models
there are, and only graphs whose rows all cost the same: of any other the number of rows tells nothing. The session
never runs in two threads at once. A provider that was asked for and is not there is an error, unless a later one of
the list may serve: ONNX Runtime itself would fall back in silence.
"""

import importlib
import importlib.metadata
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, Self

import numpy as np

from server import openvino
from server.cost_model import CostModel, buckets
from server.errors import InvalidInput, StartupError
from server.loop_turn import LoopTurn
from server.own_thread import OwnThread
from server.tensors import ORT_TYPES, Array, TensorSpec

PROVIDERS: Final[Mapping[str, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "openvino": openvino.OPENVINO,
}
ON_HOST: Final = ("cpu", "openvino")  # providers that compute on the same cores: which is faster is up to the graph
RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml", "onnxruntime-rocm")
WARM_RUNS: Final = 5
WARM_BUCKET_S: Final = 0.25  # a batch size whose runs have taken so long is measured well enough
VISITED_ROWS: Final = 64  # OpenVINO builds its kernels anew for each batch size: 10 to 60 ms that no request should pay
SEVERITY_ERROR: Final = 3  # ONNX Runtime's warnings speak of graphs that serve well


class Engine(Protocol):
    """What the batcher drives: the executor, or a fake in tests."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """What a batch is made of."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """What a batch becomes."""

    @property
    def max_batch_rows(self) -> int:
        """Rows in a batch at most."""

    def cost_s(self, rows: int) -> float:
        """Expected seconds of a batch of so many rows, kept up to date while serving; 0 while unknown."""

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs one batch.

        Args:
            inputs: By input name; unchanged until the run ends.

        Returns:
            Outputs by name, in memory that no later run writes to.
        """


@dataclass(frozen=True, slots=True)
class ExecutorOptions:
    """How a session is built.

    Args:
        providers: Names in `PROVIDERS`, best first.
        intra_op_threads: Threads that one batch may use on the CPU.
        max_batch_rows: Rows in a batch at most.
        rest: How long warming rests after each run, as a multiple of it. Where other versions answer meanwhile, a core
            that warms without rest answers half as much as before.
        device: Which CUDA device; None for ONNX Runtime's default.
        inline_s: Batches expected to take no longer run on the event loop itself; 0 for none.
        turn: What the executors of one event loop share.
    """

    providers: tuple[str, ...] = ("cpu",)
    intra_op_threads: int = 1
    max_batch_rows: int = 32
    rest: float = 0.0
    device: int | None = None
    inline_s: float = 0.0
    turn: LoopTurn = field(default_factory=LoopTurn, compare=False)


class Executor:
    """A loaded graph. Make one with `Executor.load`."""

    def __init__(self, session: Any, thread: OwnThread, options: ExecutorOptions, path: Path) -> None:
        self.inputs = tuple(_spec(node, path) for node in session.get_inputs())
        self.outputs = tuple(_spec(node, path) for node in session.get_outputs())
        self._session = session
        self._thread = thread
        self._options = options
        self._cost = CostModel()
        self._output_names = [spec.name for spec in self.outputs]
        self._strings_in = tuple(spec.name for spec in self.inputs if spec.datatype == "BYTES")
        self._strings_out = tuple(spec.name for spec in self.outputs if spec.datatype == "BYTES")
        self._inline_s = options.inline_s if _rows_cost_the_same(self.inputs) else 0.0

    @classmethod
    async def load(cls, path: Path, options: ExecutorOptions) -> Self:
        """Builds the session, off the event loop.

        Args:
            path: The ONNX file.
            options: How to build it.

        Raises:
            StartupError: No provider of the list can serve here, or the file is no graph that it can run.
        """
        check_single_runtime()
        thread = OwnThread(f"ort {path.parent.parent.name}/{path.parent.name}")
        try:
            return cls(await thread.call(partial(_open, path, options)), thread, options, path)
        except BaseException:
            thread.stop()
            raise

    @property
    def providers(self) -> tuple[str, ...]:
        """The providers that serve, best first, by the names in `PROVIDERS`."""
        serving = self._session.get_providers()
        return tuple(name for name in self._options.providers if PROVIDERS[name] in serving)

    @property
    def max_batch_rows(self) -> int:
        """Rows in a batch at most."""
        return self._options.max_batch_rows

    @property
    def costs(self) -> Mapping[int, float]:
        """Measured batch sizes (rows) and what they cost now, in seconds; empty before the first run."""
        return self._cost.costs

    def cost_s(self, rows: int) -> float:
        """Expected seconds of a batch of so many rows; 0 before the first run."""
        return self._cost.cost_s(rows)

    async def warm(self) -> None:
        """Runs every batch size a few times and keeps the best time of each.

        A graph that cannot run on zeros (its free dimensions taken as 1, its strings as empty) is left cold: its costs
        are learnt from real runs.
        """
        batched = bool(self.inputs) and all(spec.batched for spec in self.inputs)
        for rows in buckets(self.max_batch_rows) if batched else (1,):
            try:
                best_s = await self._thread.call(partial(self._best_s, _zeros(self.inputs, rows)))
            except Exception:  # noqa: BLE001 ORT's errors share no base class, and any of them means the same here
                return
            self._cost.measure(rows, best_s)

    async def visit_sizes(self) -> None:
        """Runs every batch size up to `VISITED_ROWS` once, where the provider prepares itself for each size anew."""
        if self.providers[:1] != ("openvino",) or not self.costs or not self.inputs[0].batched:
            return
        for rows in range(1, min(self.max_batch_rows, VISITED_ROWS) + 1):
            await self._thread.call(partial(self._rested_run, _zeros(self.inputs, rows)))

    async def run(self, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
        """Runs one batch: on the executor's thread, or at once where it is short and nothing else runs.

        Batches run in the order of the calls. A call that is cancelled before its turn costs nothing. While a batch ran
        at once the loop did not turn: it is for the caller to let it.

        Args:
            inputs: By input name, unchanged until the run ends.

        Returns:
            Outputs by name, each in memory of its own.

        Raises:
            InvalidInput: A string is not UTF-8, which is all that ONNX Runtime's strings can be.
            InferenceFailed: The executor is closed.
            Exception: Whatever ONNX Runtime raises.
        """
        rows = _rows(self.inputs, inputs)
        if self._runs_inline(rows):
            self._options.turn.take()
            outputs, seconds = self._timed_run(inputs)
        else:
            outputs, seconds = await self._thread.call(partial(self._timed_run, inputs))
        self._cost.observe(rows, seconds)
        return outputs

    async def close(self) -> None:
        """Ends the thread once every run already asked for is done, and frees the session."""
        if self._thread.stopped:
            return
        released = self._thread.call(self._release)
        self._thread.stop()
        await released

    def _runs_inline(self, rows: int) -> bool:
        thread = self._thread
        if self._options.turn.taken or not thread.idle or thread.stopped:
            return False
        return 0.0 < self._cost.cost_s(rows) <= self._inline_s

    def _timed_run(self, inputs: Mapping[str, Array]) -> tuple[Mapping[str, Array], float]:
        started_s = time.perf_counter()
        if self._strings_in:
            inputs = {**inputs, **{name: _to_str(name, inputs[name]) for name in self._strings_in}}
        outputs = dict(zip(self._output_names, self._session.run(self._output_names, inputs), strict=True))
        for name in self._strings_out:
            outputs[name] = _to_bytes(outputs[name])
        return outputs, time.perf_counter() - started_s

    def _best_s(self, inputs: Mapping[str, Array]) -> float:
        self._rested_run(inputs)  # the first run of a size allocates and tunes
        best_s, spent_s = float("inf"), 0.0
        for _ in range(WARM_RUNS):
            seconds = self._rested_run(inputs)
            best_s, spent_s = min(best_s, seconds), spent_s + seconds
            if spent_s > WARM_BUCKET_S:
                break
        return best_s

    def _rested_run(self, inputs: Mapping[str, Array]) -> float:
        seconds = self._timed_run(inputs)[1]
        if self._options.rest:
            time.sleep(self._options.rest * seconds)  # on the executor's own thread
        return seconds

    def _release(self) -> None:
        self._session = _Closed(self._session.get_providers())


class _Closed:
    """Stands where the session was, so that its memory is free while metadata can still be asked for."""

    def __init__(self, providers: list[str]) -> None:
        self._providers = providers

    def get_providers(self) -> list[str]:
        return self._providers


def rivals(providers: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Lists what is to be measured against each other: OpenVINO and the CPU's own kernels, whichever is named first.

    A GPU at the head of the list is meant, and nothing is measured against it.

    Args:
        providers: Allowed ones, best first.

    Returns:
        Lists for `ExecutorOptions.providers`, each with those behind its first that may take single nodes over.
    """
    if len(set(providers)) < len(ON_HOST) or not set(providers) <= set(ON_HOST):
        return (providers,)
    return ("openvino", "cpu"), ("cpu",)


def check_single_runtime() -> None:
    """Checks that one build of ONNX Runtime is installed, and not several over each other.

    They share a folder: whichever was installed last wins file by file, and what is left serves wrongly or not at all.

    Raises:
        StartupError: None or several are installed; the message says how to mend it.
    """
    found = [name for name in RUNTIMES if _installed(name)]
    if len(found) == 1:
        return
    received = "none" if not found else " and ".join(found)
    mend = f"pip uninstall -y {' '.join(found)}, then " if found else ""
    raise StartupError(
        f"expected exactly one build of ONNX Runtime, received {received}; they share one folder:"
        f" {mend}install Shoal with one of its extras cpu, gpu or openvino"
    )


def _installed(distribution: str) -> bool:
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open(path: Path, options: ExecutorOptions) -> Any:
    """Builds a session on the first provider that really serves, trying the listed ones in order."""
    ort = _runtime()
    unknown = [name for name in options.providers if name not in PROVIDERS]
    if unknown or not options.providers:
        raise StartupError(f"expected providers out of {', '.join(PROVIDERS)}, received {', '.join(unknown) or 'none'}")
    if "openvino" in options.providers:
        openvino.register(ort)
    available = ort.get_available_providers()
    for start, name in enumerate(options.providers):
        if PROVIDERS[name] not in available:
            continue
        usable = [PROVIDERS[later] for later in options.providers[start:] if PROVIDERS[later] in available]
        session = _build(ort, path, options, usable)
        if session is not None and PROVIDERS[name] in session.get_providers():
            return session
    raise StartupError(
        f"expected one of the providers {', '.join(options.providers)}, received an ONNX Runtime that can use"
        f" {_short(available)} here; install the matching extra and driver, or add cpu to the list"
    )


def _runtime() -> Any:
    """Imports ONNX Runtime: late, because it takes a while, and with its telemetry off."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return importlib.import_module("onnxruntime")


def _build(ort: Any, path: Path, options: ExecutorOptions, providers: list[str]) -> Any:
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = options.intra_op_threads
    settings.inter_op_num_threads = 1
    settings.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    settings.log_severity_level = SEVERITY_ERROR
    # A pool that spins between batches takes the core that the event loop needs.
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if PROVIDERS["cpu"] not in providers:
        settings.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    plugged = providers[0] == openvino.OPENVINO and openvino.add_device(ort, settings, options.intra_op_threads)
    # Devices and names exclude each other: given both, ONNX Runtime would take the names.
    chosen = None if plugged else [_with_device(provider, options.device) for provider in providers]
    try:
        # Its own fallback would change to the CPU in silence, when loading and again at any run.
        session = ort.InferenceSession(path, settings, providers=chosen, enable_fallback=0)
    except Exception as error:
        raise StartupError(f"ONNX Runtime cannot load {path} on {_short(providers)}: {error}") from error
    return None if plugged and not openvino.computes(session) else session


def _with_device(provider: str, device: int | None) -> str | tuple[str, dict[str, str]]:
    if device is None or provider != PROVIDERS["cuda"]:
        return provider
    return provider, {"device_id": str(device)}


def _short(providers: list[str]) -> str:
    names = {full: name for name, full in PROVIDERS.items()}
    return ", ".join(names[full] for full in providers if full in names) or "none of Shoal's providers"


def _spec(node: Any, path: Path) -> TensorSpec:
    if node.type not in ORT_TYPES:
        raise StartupError(f"expected tensors of plain types in {path}, received {node.type} for '{node.name}'")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(node.name, ORT_TYPES[node.type], shape)


def _rows_cost_the_same(inputs: tuple[TensorSpec, ...]) -> bool:
    """Whether the number of rows tells what a batch costs: no other dimension is free, and no strings have lengths."""
    return all(-1 not in spec.shape[spec.batched :] and spec.datatype != "BYTES" for spec in inputs)


def _zeros(inputs: tuple[TensorSpec, ...], rows: int) -> dict[str, Array]:
    return {spec.name: _zero(spec, (rows if spec.batched else 1)) for spec in inputs}


def _zero(spec: TensorSpec, rows: int) -> Array:
    shape = [1 if size == -1 else size for size in spec.shape]
    if spec.batched:
        shape[0] = rows
    return np.full(shape, b"", dtype=object) if spec.datatype == "BYTES" else np.zeros(shape, dtype=spec.dtype)


def _rows(inputs: tuple[TensorSpec, ...], arrays: Mapping[str, Array]) -> int:
    first = inputs[0] if inputs else None
    return len(arrays[first.name]) if first is not None and first.batched else 1


def _to_str(name: str, values: Array) -> Array:
    """ONNX Runtime takes `str`; of `bytes` it would make their Python spelling."""
    try:
        texts = [value.decode() if isinstance(value, bytes) else value for value in values.ravel()]
    except UnicodeDecodeError as error:
        raise InvalidInput(f"expected UTF-8 strings for '{name}', received bytes that are not: {error}") from error
    strings = np.empty(values.size, dtype=object)
    strings[:] = texts
    return strings.reshape(values.shape)


def _to_bytes(values: Array) -> Array:
    encoded = np.empty(values.size, dtype=object)
    encoded[:] = [value.encode() for value in values.ravel()]
    return encoded.reshape(values.shape)

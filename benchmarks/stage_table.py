"""Which stage of a request a Python stack belongs to: that of its innermost frame that a row here names.

    stack ─▶ innermost frame ─┬─ named by a row ─▶ its stage
                              └─ not named ─▶ the frame that called it … ─▶ none of them: the rest

C code has no Python frame: it counts for the function that called it (a `write` for the one that wrote, the engine for
`Session.run`), and uvloop's, which nothing calls, for `asyncio.Runner.run`.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

REST: Final = "the rest"
NATIVE: Final = "gRPC's own threads"
_SAMPLE: Final = "Stack (most recent call first):"
_FRAME: Final = re.compile(r'^  File "(?P<file>.+)", line \d+ in (?P<function>.+)$', re.MULTILINE)

Frame = tuple[str, str]  # file, function
Stack = tuple[Frame, ...]  # innermost first


class Place(NamedTuple):
    """Where code of a stage is.

    Args:
        path: End of a file's path; with a slash behind it, a folder.
        functions: Names of functions there; empty for all.
        alone: Only where it has called no other Python, as is so of what calls everything.
    """

    path: str
    functions: tuple[str, ...] = ()
    alone: bool = False

    def holds(self, frame: Frame) -> bool:
        """Whether a frame is here."""
        file, function = frame
        inside = f"/{self.path}" in file if self.path.endswith("/") else file.endswith(f"/{self.path}")
        return inside and (not self.functions or function in self.functions)


class Stage(NamedTuple):
    """One row.

    Args:
        name: Of the stage.
        why: What it does and why that costs what it costs.
        places: Its code.
    """

    name: str
    why: str
    places: tuple[Place, ...] = ()


_CODECS: Final = "server/transports/codecs"
_HTTP: Final = "server/transports"
STAGES: Final = (
    Stage(
        "inference",
        "ONNX Runtime's own work, one thread for each worker; the larger the batch, the cheaper each image"
        " (the engine alone: last rows)",
        (Place("onnxruntime/"), Place("server/executor.py", ("_timed_run",))),
    ),
    Stage(
        "event loop: wake, read, turn",
        "epoll, one `read` for each request, and uvloop's way from callback to callback: C without a Python"
        " frame, TCP in the kernel included",
        (Place("asyncio/runners.py", ("run",), alone=True), Place("uvloop/", alone=True)),
    ),
    Stage(
        "HTTP: head and task",
        "a head is looked up among those read before, the body is sliced off, and one task is made",
        (
            Place(
                "server/transports/http_connection.py", ("data_received", "_read", "_complete", "_take", "_recognise")
            ),
            Place("server/transports/http_hot.py", ("read", "read_head", "_read_fields", "_text")),
            Place("server/transports/http_shedding.py"),
            Place("aiohttp/"),
        ),
    ),
    Stage(
        "gRPC: calls, protobuf",
        "pygrpc-native's Python: objects and a task for each call, protobuf's reading and writing of the"
        " messages, waits for the interpreter's lock",
        (
            Place("pygrpc_native/"),
            Place("grpc/"),
            Place("server/transports/v2_grpc.py"),
            Place("server/transports/grpc_calls.py"),
            Place("server/transports/grpc_host.py"),
            Place("server/transports/grpc_security.py"),
        ),
    ),
    Stage(
        "reading what is asked",
        "fields become a checked request, and bytes an array, by a view and no copy; every check is some Python",
        (
            Place(f"{_CODECS}/plain.py", ("decode_request", "form_of", "read_top_k")),
            Place(
                f"{_CODECS}/v2_json.py",
                ("decode_request", "_read_document", "read_binary_head", "_raw_tensor", "_decode_inputs", "_parse"),
            ),
            Place(f"{_CODECS}/v2_binary.py"),
            Place(f"{_CODECS}/v2_tensors.py", ("decode_raw", "_shaped", "_count", "_dtype_of")),
            Place(
                f"{_CODECS}/v2_messages.py", ("decode_request", "_decode_inputs", "_decode_contents", "read_choices")
            ),
            Place(f"{_CODECS}/v2.py", ("read_version", "read_parameters", "read_output", "refuse_shared_memory")),
            Place(
                f"{_HTTP}/http_inference.py", ("_decode_v2", "_header_length", "read_budget", "read_number", "<lambda>")
            ),
            Place(f"{_HTTP}/v2.py", ("read",)),
            Place("server/payload.py"),
        ),
    ),
    Stage(
        "decoding the picture",
        "inflate and PNG's filters in C, two copies of the pixels, and in Python the walk over the file's chunks",
        (
            Place("server/images.py"),
            Place("server/png.py"),
            Place("server/jpeg.py"),
            Place("server/resize.py"),
            Place("server/decode_pool.py"),
            Place("PIL/"),
        ),
    ),
    Stage(
        "version, admission",
        "which version answers, whether the wait fits the deadline, and the coroutines between transport"
        " and batcher: many small steps",
        (
            Place("server/service.py"),
            Place("server/models.py", ("choose", "shadow")),
            Place("server/routing.py"),
            Place("server/versions.py", ("lease", "_enter", "_exit", "__enter__", "__exit__", "in_flight", "image")),
            Place("server/admission.py"),
            Place("server/deadline.py"),
            Place("server/congestion.py"),
            Place(f"{_HTTP}/http_inference.py", ("predict", "infer_v2")),
            Place(f"{_HTTP}/v2.py", ("infer",)),
        ),
    ),
    Stage(
        "batcher",
        "a ticket and a future for each request, its rows copied into the batch and its own rows cut out of"
        " the answer; all else is once a batch",
        (
            Place("server/batcher.py"),
            Place("server/batch.py"),
            Place("server/slabs.py"),
            Place("server/ticket_queue.py"),
            Place("server/pace.py"),
            Place("server/cost_model.py"),
            Place("server/executor.py", ("run", "_runs_inline", "_rows", "cost_s")),
        ),
    ),
    Stage(
        "to a thread and back",
        "for batches too long for the event loop: a queue, a wake-up, and a wait for the interpreter's lock",
        (
            Place("server/own_thread.py", ("_work",), alone=True),
            Place("server/own_thread.py", ("call", "_settle", "idle")),
            Place("concurrent/futures/thread.py", ("_worker",), alone=True),
            Place("concurrent/futures/thread.py", ("submit", "_adjust_thread_count")),
        ),
    ),
    Stage(
        "building the answer",
        "the best classes as JSON, the tensor's bytes behind a short head, or a protobuf message; HTTP's"
        " head is a template",
        (
            Place(f"{_CODECS}/plain.py", ("encode_response", "_top")),
            Place(
                f"{_CODECS}/v2_json.py", ("encode_response", "_encode_binary", "_spell_binary_head", "_encode_output")
            ),
            Place(f"{_CODECS}/v2_messages.py", ("encode_response",)),
            Place(f"{_CODECS}/v2_tensors.py", ("encode_raw", "datatype_of", "holds_bytes")),
            Place(f"{_CODECS}/v2.py", ("select", "all_binary")),
            Place(f"{_CODECS}/ranking.py"),
            Place("server/transports/http_hot.py", ("spell", "spell_head")),
            Place("server/transports/http_problems.py", ("spell_timing",)),
            Place("server/transports/http_connection.py", ("_answer",)),
        ),
    ),
    Stage(
        "writing the answer",
        "one `write` for each answer, in which the kernel runs both sides of TCP and wakes the client",
        (Place("server/transports/http_connection.py", ("_end", "_stay")),),
    ),
    Stage(
        "metrics, log, drift",
        "some histograms for each request; a thread takes drift's sample four times a second, however many"
        " requests there are",
        (
            Place("server/metrics.py"),
            Place("server/metrics_histogram.py"),
            Place("server/metrics_sampler.py"),
            Place("server/loop_lag.py"),
            Place("server/request_log.py"),
            Place("server/drift.py"),
            Place("server/looks.py"),
            Place("server/predictions/"),
            Place("server/transports/v2_settings.py"),
        ),
    ),
    Stage(
        NATIVE,
        "HTTP/2 in Rust with the kernel's reads and writes, by the threads' own clocks; no Python runs there",
    ),
    Stage(
        REST,
        "what no row above names",
    ),
)


def stacks(text: str) -> Iterator[Stack]:
    """Every sample of a thread.

    Args:
        text: As `faulthandler` writes it.
    """
    for sample in text.split(_SAMPLE)[1:]:
        yield tuple((found["file"], found["function"]) for found in _FRAME.finditer(sample))


def stage_of(stack: Stack) -> str:
    """The stage of the innermost frame that has one.

    Args:
        stack: Innermost first.
    """
    named = (_stage_of(frame, alone=index == 0) for index, frame in enumerate(stack))
    return next((found for found in named if found is not None), REST)


def count(text: str) -> Counter[str]:
    """Samples by stage.

    Args:
        text: As `faulthandler` writes it.
    """
    return Counter(stage_of(stack) for stack in stacks(text))


def split(samples: Mapping[str, int], native: float, cpu_us: float) -> dict[str, float]:
    """The CPU time of a request by stage, in microseconds; together exactly `cpu_us`.

    Args:
        samples: By stage, of threads that run Python.
        native: Share of the CPU time that other threads had, of which there are no samples.
        cpu_us: CPU time of a request.

    Raises:
        ValueError: There are no samples.
    """
    seen = sum(samples.values())
    if not seen:
        raise ValueError(
            "expected samples of the server's stacks, received none: run it where PYTHONPATH names no sitecustomize.py"
            " and where the kernel has CPU timers (Linux, no gVisor)"
        )
    found = {stage.name: samples.get(stage.name, 0) / seen * (1 - native) * cpu_us for stage in STAGES}
    found[NATIVE] += native * cpu_us
    return found


def rounded(values: Sequence[float]) -> list[int]:
    """Whole numbers that add up to the rounded sum: those with the largest fractions are rounded up.

    Args:
        values: At least 0.
    """
    whole = [int(value) for value in values]
    missing = round(sum(values)) - sum(whole)
    nearest = sorted(range(len(values)), key=lambda index: whole[index] - values[index])
    for index in nearest[:missing]:
        whole[index] += 1
    return whole


def _stage_of(frame: Frame, *, alone: bool) -> str | None:
    for stage in STAGES:
        if any(place.holds(frame) for place in stage.places if alone or not place.alone):
            return stage.name
    return None

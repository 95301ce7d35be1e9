"""The blocks of a spool's file: what a worker appends, and the writer reads. Pure.

    block    "SB" kind 0 · length (4 bytes) · CRC-32 (4 bytes) · payload           little-endian throughout
    V        JSON: a version that rows behind it are of, and the number that they call it by
    R        number of the version (4) · number of the first row (8)
             · length (4) · JSON: ids, clients, ... of each request · float64 times · float64 latencies
             · SHA-256 of each row · probabilities of each row · what was sent, where that is kept
    G        JSON: a gap: what was lost before

Rows are written by columns, which takes an eighth of the time that a JSON object for each would. Of a model with many
classes only the best few are here, so a row has some 120 bytes.

What a block has behind its numbers is a `Group`: the event loop makes it of a few answers at a time, while what they
consist of is in the processor's cache, and the thread that writes gives it its numbers.
"""

import struct
import zlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from server.predictions.answers import DIGEST_BYTES, Entry, Lane, probabilities_in
from server.predictions.storage import Gap, Input
from server.tensors import Array

HEAD: Final = struct.Struct("<2scxII")
_LENGTH: Final = struct.Struct("<I")
_CLASSES_NDIM: Final = 2
_NUMBERS: Final = struct.Struct("<IQ")
_MAGIC: Final = b"SB"
VERSION, ROWS, GAP = b"V", b"R", b"G"
TOP_K: Final = 5
# Up to here all probabilities are written: that is less work than choosing the best.
WHOLE_CLASSES: Final = 32
_FLOATS: Final[dict[str, np.dtype[Any]]] = {"e": np.dtype("<f2"), "f": np.dtype("<f4"), "d": np.dtype("<f8")}


class Block(NamedTuple):
    """One block as it was found.

    Args:
        kind: `VERSION`, `ROWS` or `GAP`.
        payload: Its content.
        end: Where the next one begins.
    """

    kind: bytes
    payload: memoryview
    end: int


class Group(NamedTuple):
    """Answers of one version, in the form in which they are written.

    Args:
        rows: How many rows they have.
        content: Their bytes.
    """

    rows: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Rows:
    """A block of rows.

    Args:
        version: The number of the one that answered.
        first: The number of its first row among the worker's.
        ids: Request ids.
        clients: Who asked; "" where unknown.
        protocols: By what.
        counts: How many rows each request has.
        at_s: When, in seconds since the epoch, `float64[requests]`.
        latency_s: `float64[requests]`.
        digests: `rows` times 32 bytes.
        classes: How many the version has; 0 where it is no classifier.
        best: Class numbers, `[rows, k]`; None where `shares` has every class in its order.
        shares: Probabilities, `[rows, k]`; None where it is no classifier.
        inputs: What was sent, one for each row; empty where that is not kept.
    """

    version: int
    first: int
    ids: list[str]
    clients: list[str]
    protocols: list[str]
    counts: list[int]
    at_s: list[float]
    latency_s: list[float]
    digests: bytes
    classes: int
    best: NDArray[np.uint32] | None
    shares: NDArray[np.floating[Any]] | None
    inputs: list[Input]


def pack(kind: bytes, payload: bytes) -> bytes:
    """A block.

    Args:
        kind: What it is.
        payload: Its content.
    """
    return HEAD.pack(_MAGIC, kind, len(payload), zlib.crc32(payload)) + payload


def unpack(content: bytes | memoryview, start: int = 0) -> Iterator[Block]:
    """The whole blocks of some bytes; what is behind the last whole one is left.

    Args:
        content: Read from a spool's file.
        start: Where the first one begins.
    """
    view = memoryview(content)
    while len(view) - start >= HEAD.size:
        magic, kind, length, crc = HEAD.unpack_from(view, start)
        end = start + HEAD.size + length
        payload = view[start + HEAD.size : end]
        if magic != _MAGIC or len(payload) < length or zlib.crc32(payload) != crc:
            return
        yield Block(kind, payload, end)
        start = end


def pack_version(lane: Lane, number: int) -> bytes:
    """The block of a version.

    Args:
        lane: Of it.
        number: What rows call it by.
    """
    return pack(
        VERSION,
        orjson.dumps(
            {
                "number": number,
                "model": lane.model,
                "version": lane.version,
                "variant": lane.variant,
                "labels": lane.labels,
                "accuracy": lane.accuracy,
            }
        ),
    )


def pack_gap(gap: Gap) -> bytes:
    """The block of a gap.

    Args:
        gap: What was lost.
    """
    return pack(GAP, orjson.dumps(asdict(gap)))


def unpack_gap(payload: memoryview) -> Gap:
    """The gap of a block."""
    return Gap(**orjson.loads(payload))


def pack_rows(group: Group, version: int, first: int) -> bytes:
    """The block of a group.

    Args:
        group: The answers.
        version: The number that their version's block has.
        first: The number of the first row.
    """
    return pack(ROWS, _NUMBERS.pack(version, first) + group.content)


def group_answers(entries: Sequence[Entry], inputs: Sequence[Input] = ()) -> list[Group]:
    """Answers in the form in which they are written: one group, unless they differ in the form of what was answered.

    Args:
        entries: Of one version.
        inputs: What was sent, one for each row; empty where that is not kept.
    """
    columns = tuple(zip(*entries, strict=True))
    joined = _join(columns[7], columns[5])
    if joined is not None:
        return [_group_alike(columns, joined, inputs)]
    forms = [_form_of(output, rows) for *_, rows, _, output in entries]
    starts = [0]
    for entry in entries:
        starts.append(starts[-1] + entry[5])
    groups = []
    for form in sorted(set(forms)):
        places = [at for at, one in enumerate(forms) if one == form]
        chosen = tuple(zip(*[entries[at] for at in places], strict=True))
        own = [one for at in places for one in inputs[starts[at] : starts[at + 1]]]
        groups.append(_group_alike(chosen, np.concatenate(chosen[7]) if form[1] else None, own))
    return groups


def _join(outputs: Sequence[Array | None], counts: Sequence[int]) -> NDArray[Any] | None:
    """Probabilities one below the other, where all are of one form, as nearly always: without a look at each."""
    present = [output for output in outputs if output is not None]
    try:
        joined: NDArray[Any] = np.concatenate(present)
    except ValueError:  # they have different shapes, or there are none
        return None
    alike = joined.ndim == _CLASSES_NDIM and joined.size and joined.dtype.char in _FLOATS
    return joined if alike and list(map(len, present)) == list(counts) else None


def _form_of(output: Array | None, rows: int) -> tuple[str, int]:
    """The type and the number of an answer's probabilities; nothing where it is no classifier's."""
    known = probabilities_in(output, rows)
    return ("", 0) if known is None or known.dtype.char not in _FLOATS else (known.dtype.char, known.shape[1])


def _group_alike(columns: Sequence[Any], joined: NDArray[Any] | None, inputs: Sequence[Input]) -> Group:
    at, ids, clients, protocols, latencies, counts, digests, _ = columns
    char, classes, top, numbers = "", 0, False, b""
    if joined is not None:
        char, classes = joined.dtype.char, joined.shape[1]
        top = classes > WHOLE_CLASSES
        numbers = _best_of(joined, _FLOATS[char]) if top else joined.astype(_FLOATS[char], copy=False).tobytes()
    told = _spell(
        {
            "ids": ids,
            "clients": clients,
            "protocols": protocols,
            "counts": counts,
            "classes": classes,
            "type": char,
            "top": top,
            "sizes": [len(one.content) for one in inputs],
            "forms": [one.form for one in inputs],
        }
    )
    parts = (
        _LENGTH.pack(len(told)),
        told,
        array("d", at).tobytes(),
        array("d", latencies).tobytes(),
        *digests,
        numbers,
        *(one.content for one in inputs),
    )
    return Group(sum(counts), b"".join(parts))


def _spell(head: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(head)
    except orjson.JSONEncodeError:  # half of a surrogate pair, as a token's subject may have it, has no UTF-8
        head["clients"] = [client.encode("utf-8", "replace").decode() for client in head["clients"]]
        return orjson.dumps(head)


def _best_of(probabilities: NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    best = np.argpartition(-probabilities, TOP_K, axis=1)[:, :TOP_K]
    shares = np.take_along_axis(probabilities, best, axis=1)
    return best.astype("<u4").tobytes() + shares.astype(dtype, copy=False).tobytes()


def read_head(payload: memoryview) -> tuple[dict[str, Any], int]:
    """The JSON of a block of rows, and where its numbers begin."""
    (length,) = _LENGTH.unpack_from(payload, _NUMBERS.size)
    start = _NUMBERS.size + _LENGTH.size
    head: dict[str, Any] = orjson.loads(payload[start : start + length])
    return head, start + length


def unpack_rows(payload: memoryview) -> Rows:
    """The rows of a block.

    Args:
        payload: Of a block of rows.
    """
    version, first = _NUMBERS.unpack_from(payload)
    head, start = read_head(payload)
    requests, counts = len(head["ids"]), head["counts"]
    rows = sum(counts)
    times = np.frombuffer(payload, "<f8", 2 * requests, start)
    start += times.nbytes
    digests = bytes(payload[start : start + rows * DIGEST_BYTES])
    start += len(digests)
    best: NDArray[np.uint32] | None = None
    shares: NDArray[np.floating[Any]] | None = None
    if head["classes"]:
        kept = TOP_K if head["top"] else head["classes"]
        if head["top"]:
            best = np.frombuffer(payload, "<u4", rows * kept, start).reshape(rows, kept)
            start += best.nbytes
        shares = np.frombuffer(payload, _FLOATS[head["type"]], rows * kept, start).reshape(rows, kept)
        start += shares.nbytes
    inputs = []
    for size, form in zip(head["sizes"], head["forms"], strict=True):
        inputs.append(Input(bytes(payload[start : start + size]), form))
        start += size
    return Rows(
        version,
        first,
        head["ids"],
        head["clients"],
        head["protocols"],
        counts,
        times[:requests].tolist(),
        times[requests:].tolist(),
        digests,
        head["classes"],
        best,
        shares,
        inputs,
    )

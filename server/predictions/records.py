"""Blocks of a spool become rows of the prediction log. Pure, and in the writer's process.

Rows ──top classes, all rows at once──▶ Row, one for each picture
     └─what was sent, where it is kept─▶ digest → Input
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from server.predictions.answers import DIGEST_BYTES
from server.predictions.blocks import TOP_K, Rows
from server.predictions.storage import Input, Row, Version

# Of the best few, those below are left out: a sure answer has one class to tell, and that is a third less to write.
LEAST_SHARE: Final = 0.001
COLUMNS: Final = (
    "id",
    "at_us",
    "request_id",
    "position",
    "client",
    "protocol",
    "model",
    "version",
    "variant",
    "input_sha256",
    "label",
    "confidence",
    "top",
    "latency_us",
)
# A row's id is its worker's number in the database, and below it the row's number in the worker: 10^12 rows.
SEQUENCE_BITS: Final = 40
_US: Final = 1e6


@dataclass(frozen=True, slots=True)
class Told:
    """A version that a spool's file names.

    Args:
        model: Its model's name.
        version: Its number.
        kept: What the database keeps of it.
    """

    model: str
    version: int
    kept: Version


def read_version(payload: memoryview) -> tuple[int, Told]:
    """The number of a block's version, and the version."""
    told: Mapping[str, Any] = orjson.loads(payload)
    kept = Version(tuple(told["labels"]), told["variant"], told["accuracy"])
    return told["number"], Told(told["model"], told["version"], kept)


def spell_rows(rows: Rows, told: Told, number: int) -> list[Row]:
    """The rows of a block.

    Args:
        rows: The block's.
        told: Their version.
        number: Their worker's in the database.
    """
    counts, digests = rows.counts, rows.digests.hex()
    if len(counts) == len(digests) // (2 * DIGEST_BYTES):  # one for each request, as nearly always
        positions: Sequence[int] = [0] * len(counts)
        of_request: Sequence[int] = range(len(counts))
    else:
        positions = list(chain.from_iterable(map(range, counts)))
        of_request = list(chain.from_iterable(repeat(at, count) for at, count in enumerate(counts)))
    base, width = (number << SEQUENCE_BITS) + rows.first, 2 * DIGEST_BYTES
    facts = (told.model, told.version, told.kept.variant)
    at_us = [int(at_s * _US) for at_s in rows.at_s]
    latency_us = [int(latency_s * _US) for latency_s in rows.latency_s]
    return [
        (
            base + place,
            at_us[one],
            rows.ids[one],
            position,
            rows.clients[one] or None,
            rows.protocols[one],
            *facts,
            digests[place * width : (place + 1) * width],
            label,
            confidence,
            top,
            latency_us[one],
        )
        for place, (one, position, (label, confidence, top)) in enumerate(
            zip(of_request, positions, _spell_classes(rows, told.kept.labels), strict=True)
        )
    ]


def inputs_of(rows: Rows) -> dict[str, Input]:
    """What was sent, by its digest in hexadecimal; empty where that is not kept."""
    digests, width = rows.digests.hex(), 2 * DIGEST_BYTES
    return {digests[at * width : (at + 1) * width]: kept for at, kept in enumerate(rows.inputs)}


def _spell_classes(rows: Rows, labels: tuple[str, ...]) -> Iterator[tuple[str, float | None, str]]:
    """The best class, its probability and the best few as JSON, for each row."""
    if rows.shares is None:
        return repeat(("", None, "[]"), len(rows.digests) // DIGEST_BYTES)
    order = np.argsort(-rows.shares, axis=1, kind="stable")[:, :TOP_K]
    best = order if rows.best is None else np.take_along_axis(rows.best, order, axis=1)
    return _rank(best, np.take_along_axis(rows.shares, order, axis=1), _names_of(labels, rows.classes))


def _rank(
    best: NDArray[Any], found: NDArray[Any], names_of: tuple[tuple[str, ...], tuple[str, ...]]
) -> Iterator[tuple[str, float, str]]:
    # In six decimals: float32 holds no more, and shorter numbers are less to write. JSON has no NaN.
    shares = np.nan_to_num(found.astype(np.float64)).round(6)
    told = np.maximum((shares >= LEAST_SHARE).sum(axis=1), 1).tolist()
    names, quoted = names_of
    for classes, values, n in zip(best.tolist(), shares.tolist(), told, strict=True):
        # Put together by hand: a JSON encoder, called for each row, takes three times as long.
        if n == 1:
            top = f"[[{quoted[classes[0]]},{values[0]}]]"
        else:
            pairs = [f"[{quoted[at]},{value}]" for at, value in zip(classes[:n], values, strict=False)]
            top = f"[{','.join(pairs)}]"
        yield names[classes[0]], values[0], top


@lru_cache(maxsize=64)
def _names_of(labels: tuple[str, ...], classes: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The name of each class, or its number where it has none, plain and as JSON."""
    names = tuple(labels[at] if at < len(labels) else str(at) for at in range(classes))
    return names, tuple(orjson.dumps(name).decode() for name in names)

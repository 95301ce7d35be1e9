"""Answers become rows of the prediction log. Pure, and off the event loop.

Answered ──top classes, all answers of a version at once──▶ Row, one for each picture
         └─sha256 of each picture's bytes ────────────────▶ and the picture itself, where it is asked for
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from server.payload import tensors_of
from server.tensors import Array, InferRequest
from server.versions import LoadedModel

TOP_K: Final = 5
# Of the best few, those below are left out: a sure answer has one class to tell, and that is a third less to write.
LEAST_SHARE: Final = 0.001
COLUMNS: Final = (
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
_CLASSES_NDIM: Final = 2
_US: Final = 1e6
# hashlib lets go of the interpreter's lock from 2,048 bytes on. Getting it back beside a busy event loop takes longer
# than a small picture's digest, so small pictures are fed in pieces below that.
_PIECE_BYTES: Final = 2047
_SMALL_BYTES: Final = 16_384

# The values of COLUMNS, in their order.
Row = tuple[int, str, int, str | None, str, str, int, str, str, str, float | None, str, int]


class Answered(NamedTuple):
    """One request that was answered.

    Args:
        at_s: When, in seconds since the epoch.
        request: What was asked.
        model: The version that answered.
        images: Its encoded pictures; empty where it brought tensors or numbers.
        inputs: What the graph was given, by name; empty where there are pictures, or the answer came from the cache.
        outputs: Every output of the version, by name.
        latency_s: From the decoded request to its answer.
        rows: How many.
    """

    at_s: float
    request: InferRequest
    model: LoadedModel
    images: Sequence[bytes | memoryview]
    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]
    latency_s: float
    rows: int


class Input(NamedTuple):
    """One picture as it came, or one row of tensors.

    Args:
        content: Its bytes.
        form: "encoded" for a picture's file; the type and shape of a row otherwise, such as `uint8[28, 28, 1]`.
    """

    content: bytes
    form: str


class Spelled(NamedTuple):
    """What becomes of answers.

    Args:
        rows: One for each picture.
        inputs: Digest → what was sent; empty unless it is to be kept.
    """

    rows: list[Row]
    inputs: dict[str, Input]


def spell_answers(answers: Sequence[Answered], *, keep_inputs: bool) -> Spelled:
    """Makes rows of answers.

    Args:
        answers: Of any versions.
        keep_inputs: Whether to give what was sent too.
    """
    spelled = Spelled([], {})
    by_model: dict[int, list[Answered]] = {}
    for answered in answers:
        by_model.setdefault(id(answered.model), []).append(answered)
    for group in by_model.values():
        _spell_group(group, spelled, keep_inputs=keep_inputs)
    return spelled


def probabilities_in(model: LoadedModel, outputs: Mapping[str, Array], rows: int) -> Array | None:
    """A classifier's probabilities, `float[rows, classes]`; None where the first output is nothing of the kind.

    Args:
        model: The version.
        outputs: Its outputs.
        rows: How many the request had.
    """
    first = outputs.get(model.outputs[0].name) if model.outputs else None
    if first is None or first.dtype.kind != "f" or first.ndim != _CLASSES_NDIM or len(first) != rows or not first.size:
        return None
    return first


def digest_of(content: bytes | memoryview) -> str:
    """The SHA-256 of a picture's bytes in hexadecimal, as `sha256sum` tells it.

    Args:
        content: The bytes.
    """
    if len(content) > _SMALL_BYTES:
        return hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256(content[:_PIECE_BYTES])
    for start in range(_PIECE_BYTES, len(content), _PIECE_BYTES):
        digest.update(content[start : start + _PIECE_BYTES])
    return digest.hexdigest()


def _spell_group(group: list[Answered], spelled: Spelled, *, keep_inputs: bool) -> None:
    model = group[0].model
    name, version, variant = model.name, model.version, model.variant
    classes = iter(_spell_classes(group))
    for answered in group:
        at_s, request, *_, latency_s, _ = answered
        facts = (request.client or None, request.protocol, name, version, variant)
        at_us, latency_us, request_id = int(at_s * _US), int(latency_s * _US), request.request_id
        images = answered.images
        contents = zip(images, repeat("encoded")) if images else _contents(answered)
        for position, (content, form) in enumerate(contents):
            digest = digest_of(content)
            label, confidence, top = next(classes)
            spelled.rows.append((at_us, request_id, position, *facts, digest, label, confidence, top, latency_us))
            if keep_inputs and digest not in spelled.inputs:
                spelled.inputs[digest] = Input(bytes(content), form)


def _spell_classes(group: list[Answered]) -> Iterator[tuple[str, float | None, str]]:
    """The best class, its probability and the best few as JSON, for each row of answers of one version."""
    model = group[0].model
    found = [probabilities_in(model, one.outputs, one.rows) for one in group]
    known = [one for one in found if one is not None]
    ranked = _rank(np.concatenate(known), model.labels) if known else iter(())
    for answered, probabilities in zip(group, found, strict=True):
        for _ in range(answered.rows):
            yield next(ranked) if probabilities is not None else ("", None, "[]")


def _rank(probabilities: NDArray[np.floating], labels: tuple[str, ...]) -> Iterator[tuple[str, float, str]]:
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
    # In six decimals: float32 holds no more, and shorter numbers are less to write. JSON has no NaN.
    shares = np.nan_to_num(np.take_along_axis(probabilities, best, axis=1).astype(np.float64)).round(6)
    told = np.maximum((shares >= LEAST_SHARE).sum(axis=1), 1).tolist()
    names, quoted = _names_of(labels, probabilities.shape[1])
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


def _contents(answered: Answered) -> Iterator[tuple[bytes, str]]:
    # Numbers that the cache knew were not fitted to the input again: that is done here, off the event loop.
    inputs = answered.inputs or tensors_of(answered.request, answered.model)
    arrays = [inputs[name] for name in sorted(inputs)]
    for row in range(answered.rows):
        own = [_row_of(array, row, answered.rows) for array in arrays]
        yield b"".join(map(_bytes_of, own)), ", ".join(f"{array.dtype}{list(array.shape)}" for array in own)


def _row_of(array: Array, row: int, rows: int) -> Array:
    if array.ndim == 0 or len(array) != rows:  # an input without a batch dimension
        return array
    own: Array = array[row] if array.ndim > 1 else array[row : row + 1]
    return own


def _bytes_of(array: Array) -> bytes:
    if not array.dtype.hasobject:
        return array.tobytes()
    # Strings, each behind its length in four bytes: the Open Inference Protocol's raw form.
    values = [value if isinstance(value, bytes) else str(value).encode() for value in array.ravel().tolist()]
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)

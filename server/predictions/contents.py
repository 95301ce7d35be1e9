"""What was sent, row by row: large inputs are digested from it, and it is kept where that is asked for."""

from collections.abc import Iterator

from server.payload import tensors_of
from server.predictions.answers import Answered, Entry, Lane, digest_of
from server.predictions.storage import Input
from server.tensors import Array


def contents_of(answered: Answered) -> Iterator[tuple[bytes | memoryview, str]]:
    """What was sent for each row, and its form; see `Input`.

    Args:
        answered: One answer.
    """
    if answered.images:
        for image in answered.images:
            yield image, "encoded"
        return
    # Numbers that the cache knew were not fitted to the input again: that is done here, off the event loop.
    inputs = answered.inputs or tensors_of(answered.request, answered.model)
    arrays = [inputs[name] for name in sorted(inputs)]
    for row in range(answered.rows):
        own = [_row_of(array, row, answered.rows) for array in arrays]
        yield b"".join(map(_bytes_of, own)), ", ".join(f"{array.dtype}{list(array.shape)}" for array in own)


def entry_of(answered: Answered, lane: Lane, *, keep_inputs: bool) -> tuple[Entry, list[Input]]:
    """The entry of an answer that waited to be digested, and what was sent, where that is to be kept.

    Args:
        answered: The answer.
        lane: Of its version.
        keep_inputs: Whether to give what was sent.
    """
    digests, inputs = [], []
    for content, form in contents_of(answered):
        digests.append(digest_of(content))
        if keep_inputs:
            inputs.append(Input(bytes(content), form))
    request = answered.request
    entry = (
        answered.at_s,
        request.request_id,
        request.client,
        request.protocol,
        answered.latency_s,
        answered.rows,
        b"".join(digests),
        answered.outputs.get(lane.output),
    )
    return entry, inputs


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

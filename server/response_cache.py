"""Answers that were given before: the same input to the same version is not computed twice. Off by default.

    inputs ──digest──▶ key of (version as loaded, input, outputs asked for) ──▶ outputs, or none

The key holds the loaded version itself, not its number: a folder that changes under the same number is another version.
Least recently used answers go first when the bytes are used up. One event loop owns it; no locks.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from server.tensors import Array, InferRequest, bytes_held
from server.versions import LoadedModel

# What an entry costs besides its arrays' data: key, dictionary, array objects.
ENTRY_BYTES: Final = 600
_DIGEST_BYTES: Final = 16

Key = tuple[LoadedModel, bytes]
Outputs = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache holds and has done.

    Args:
        entries: Answers held.
        n_bytes: What they take.
        hits: Requests answered from it.
        misses: Requests that had to be computed.
        evicted: Answers that made room for others.
    """

    entries: int
    n_bytes: int
    hits: int
    misses: int
    evicted: int


class ResponseCache:
    """See the module.

    Args:
        max_bytes: What all answers may take together.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, Outputs] = OrderedDict()
        self._n_bytes = self._hits = self._misses = self._evicted = 0

    def find(self, key: Key) -> Outputs | None:
        """The outputs given for this key before, or None.

        Args:
            key: Of `key_of`.
        """
        found = self._entries.get(key)
        if found is None:
            self._misses += 1
            return None
        self._hits += 1
        self._entries.move_to_end(key)
        return found

    def keep(self, key: Key, outputs: Outputs) -> None:
        """Remembers an answer; what alone is over the bound is not kept.

        Args:
            key: Of `key_of`.
            outputs: Arrays by name, which nobody changes any more. They are copied: a caller's rows are a view of the
                whole batch's memory.
        """
        size = _size(outputs)
        if size > self._max_bytes or key in self._entries:
            return
        while self._n_bytes + size > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self._n_bytes -= _size(oldest)
            self._evicted += 1
        self._entries[key] = {name: array.copy() for name, array in outputs.items()}
        self._n_bytes += size

    def forget_closed(self) -> None:
        """Drops the answers of versions that were let go, and with them the versions."""
        for key in [key for key in self._entries if key[0].closed]:
            self._n_bytes -= _size(self._entries.pop(key))

    def statistics(self) -> CacheStatistics:
        """What it holds now and has done so far."""
        return CacheStatistics(len(self._entries), self._n_bytes, self._hits, self._misses, self._evicted)


def key_of(model: LoadedModel, images: Sequence[bytes | memoryview], request: InferRequest) -> Key | None:
    """The key of a request.

    Args:
        model: The version that answers it.
        images: Its encoded pictures, by whichever way they came.
        request: Its tensors or numbers, where it has no pictures.

    Returns:
        The key, or None for strings that are not pictures: hashing objects one by one costs more than it saves.
    """
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for image in images:
        digest.update(b"p%d:" % len(image))
        digest.update(image)
    if images:
        return model, digest.digest()
    if request.numbers is not None:
        _add(digest, f"n{request.numbers.scale}", request.numbers.values)
    for name in sorted(request.inputs):
        array = request.inputs[name]
        if array.dtype.hasobject:
            return None
        _add(digest, f"t{name}", array)
    return model, digest.digest()


def _add(digest: "hashlib.blake2b", name: str, array: Array) -> None:
    digest.update(f"{name}\0{array.dtype.str}{array.shape}:".encode())
    digest.update(np.ascontiguousarray(array).data)


def _size(outputs: Outputs) -> int:
    return ENTRY_BYTES + sum(map(bytes_held, outputs.values()))

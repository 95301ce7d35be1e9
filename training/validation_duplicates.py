"""Pairs of pictures that look alike, found among many without comparing all with all.

    signature ──DCT──▶ 64-bit perceptual hash ──bands──▶ candidates ──signatures differ little?──▶ pairs

Hashes that differ in at most k of 64 bits agree in at least one of k + 1 bands of bits (the pigeonhole principle), so
only pictures that share a band are compared. The hash is that of perceptual hashing by the discrete cosine transform:
which of the 64 lowest frequencies lie above their median (C. Zauner, "Implementation and Benchmarking of Perceptual
Image Hash Functions", 2010). The hash only proposes; pictures are alike if their signatures correlate as well.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training import console

BITS: Final = 64
_SIDE: Final = 8  # of the block of low frequencies
_BLOCK_PAIRS: Final = 250_000  # compared at once: bounds the memory to some 500 MB if all of them are alike


def hashes(signatures: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hashes pictures such that similar ones have similar hashes.

    Args:
        signatures: `uint8[n, side, side]`, grey.

    Returns:
        `uint64[n]`.
    """
    side = signatures.shape[1]
    angles = np.pi / side * np.outer(np.arange(_SIDE), np.arange(side) + 0.5)
    waves = np.cos(angles).astype(np.float32)
    frequencies = (waves @ signatures.astype(np.float32) @ waves.T).reshape(-1, BITS)
    frequencies[:, 0] = 0  # the mean says nothing about what is where
    bits = frequencies > np.median(frequencies, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def alike(signatures: NDArray[np.uint8], *, max_bits: int, min_correlation: float, max_pairs: int) -> NDArray[np.int64]:
    """Finds pairs of pictures that look alike.

    Args:
        signatures: `uint8[n, side, side]`, grey.
        max_bits: Hashes may differ in so many bits of 64.
        min_correlation: Of the two signatures' pixels, -1..1; plain pictures (of one grey) correlate with none.
        max_pairs: Stop after so many.

    Returns:
        `int64[pairs, 2]`, the smaller number first, the closest pairs first.
    """
    hashed, unit = hashes(signatures), _standardised(signatures)
    patterned = np.flatnonzero(unit.any(axis=1))
    found = [np.empty((2, 0), dtype=np.int64)]
    correlations = [np.empty(0, dtype=np.float32)]
    total = 0
    for first, second in _candidates(hashed, patterned, max_bits):
        correlation: NDArray[np.float32] = np.einsum("ij,ij->i", unit[first], unit[second])
        kept = correlation >= min_correlation
        found.append(np.sort(np.stack([first[kept], second[kept]]), axis=0))
        correlations.append(correlation[kept])
        total += int(kept.sum())
        if total >= max_pairs:
            break
    closest_first = np.argsort(-np.concatenate(correlations), kind="stable")[:max_pairs]
    return np.concatenate(found, axis=1).T[closest_first]


def _standardised(signatures: NDArray[np.uint8]) -> NDArray[np.float32]:
    flat = signatures.reshape(len(signatures), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    flat /= np.maximum(length, np.finfo(np.float32).tiny)  # plain pictures stay zero
    return flat


def _candidates(
    hashed: NDArray[np.uint64], numbers: NDArray[np.int64], max_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields pairs of numbers whose hashes differ in few bits, each pair once, a bounded number at a time."""
    bands = _bands(max_bits)
    with console.progress("comparing pictures", len(bands)) as advance:
        for index, band in enumerate(bands):
            keys = hashed[numbers] & band
            order = np.argsort(keys, kind="stable")
            for bucket in np.split(numbers[order], np.flatnonzero(np.diff(keys[order])) + 1):
                yield from _within(bucket, hashed, bands[:index], max_bits)
            advance(1)


def _bands(max_bits: int) -> list[np.uint64]:
    """Cuts 64 bits into `max_bits + 1` masks."""
    edges = np.linspace(0, BITS, max_bits + 2).round().astype(int).tolist()
    return [np.uint64(((1 << high) - 1) ^ ((1 << low) - 1)) for low, high in pairwise(edges)]


def _within(
    bucket: NDArray[np.int64], hashed: NDArray[np.uint64], earlier: list[np.uint64], max_bits: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yields the pairs within a bucket that no earlier band has put into one bucket."""
    block_rows = max(1, _BLOCK_PAIRS // max(1, len(bucket)))
    for start in range(0, len(bucket) - 1, block_rows):
        block, others = bucket[start : start + block_rows], bucket[start + 1 :]
        differing = hashed[block][:, None] ^ hashed[others][None, :]
        # Row i of the block is followed in `others` by itself from position i on.
        rows, columns = np.nonzero(np.triu(np.bitwise_count(differing) <= max_bits))
        bits = differing[rows, columns]
        new = np.all([bits & band for band in earlier], axis=0) if earlier else np.ones(len(bits), dtype=bool)
        if new.any():
            yield block[rows[new]], others[columns[new]]

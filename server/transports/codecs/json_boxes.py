"""Pixels in JSON, read without an object for each of them.

    {"data": [[[[12, 255, …], …]]], "top_k": 3}
     ╰─ head        ╰─ text ─────╯  ╰─ tail

    text ─┬─ its brackets and commas are those of one box ─▶ shape   ╮
          └─ its digits, by NumPy, all of them at once ────▶ values  ┴▶ uint8[shape]
    head + a mark + tail ──▶ orjson ──▶ a document with the array in the mark's place

A JSON parser makes a list for every pixel, which then has to be checked and taken apart again: 165 µs for a picture of
32 × 32, where this takes 65. It knows whole numbers from 0 to 255 in lists of one shape, spaced as JSON's own writers
do. Whatever is not exactly that is None: the parser reads the body then, and messages are about what it found.
"""

import math
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from server.tensors import Array

HEAD_BYTES: Final = 1024  # how far into a body its numbers begin at most
TAIL_BYTES: Final = 1024
MAX_DEPTH: Final = 8
# Skeletons that are remembered with their shapes, of how many bytes at most: pictures of one size have one skeleton.
KEPT: Final = 16
KEPT_BYTES: Final = 1 << 16
_MARK: Final = "the numbers that were read apart"
_DIGITS: Final = b"0123456789"
_BASE: Final = 10
_TEN, _HUNDRED = np.uint8(10), np.uint8(100)
_LARGEST_HUNDREDS, _LARGEST_REST = np.uint8(2), np.uint8(55)  # of what a byte holds
# What a character is once "0" is taken from it, in a byte.
_ZERO: Final = np.uint8(ord("0"))
_SPACE: Final = (ord(" ") - ord("0")) % 256
_OPEN: Final = (ord("[") - ord("0")) % 256
_CLOSE: Final = (ord("]") - ord("0")) % 256
# A number has three digits at most, and there is something before each that is none: the key's closing quote and colon.
_BEFORE: Final = 2

Holders = Callable[[dict[str, Any]], Iterable[Any]]


def pattern_of(*keys: str) -> re.Pattern[bytes]:
    """What finds the beginning of the numbers.

    Args:
        keys: The names that they may go by.
    """
    return re.compile(rb'"(' + "|".join(keys).encode() + rb')"[ \t\r\n]*:[ \t\r\n]*(?=\[)')


def loads(body: bytes, pattern: re.Pattern[bytes], holders: Holders) -> dict[str, Any] | None:
    """Reads a document that has one box of small whole numbers.

    Args:
        body: JSON.
        pattern: Finds the box; `pattern_of` makes it.
        holders: The parts of a document in which the box may be.

    Returns:
        The document with a `uint8` array where the box is; None where a parser has to read the body.
    """
    found = pattern.search(body, 0, HEAD_BYTES)
    if found is None:
        return None
    start = found.end()
    stop = _end_of_box(body, start)
    head, tail = body[:start], body[stop:]
    # Without escapes a mark is a mark: it can be nobody else's text.
    if len(tail) > TAIL_BYTES or b"\\" in head or b"\\" in tail or _MARK.encode() in head + tail:
        return None
    document = _parse(b'%b"%b"%b' % (head, _MARK.encode(), tail))
    if document is None:
        return None
    key = found[1].decode()
    for holder in holders(document):
        if isinstance(holder, dict) and holder.get(key) == _MARK:
            box = read_box(body, start, stop)
            if box is None:
                return None
            holder[key] = box
            return document
    return None


def read_box(body: bytes, start: int, stop: int) -> Array | None:
    """Reads nested lists of one shape.

    Args:
        body: What they are in, at least two characters from its beginning.
        start: Where the first list opens.
        stop: Behind the last list's end.

    Returns:
        `uint8` in the lists' shape, or None where they are no such lists of whole numbers from 0 to 255.
    """
    skeleton = body[start:stop].translate(None, _DIGITS)
    shape = _known_shape(skeleton) if len(skeleton) <= KEPT_BYTES else box_shape(skeleton)
    if not shape:
        return None
    values = _read_values(body[start - _BEFORE : stop])
    return values.reshape(shape) if values is not None and values.size == math.prod(shape) else None


def box_shape(skeleton: bytes) -> tuple[int, ...]:
    """The shape of nested lists, by their brackets and commas alone.

    Args:
        skeleton: The lists' text without their numbers; `[,]` for two of them.

    Returns:
        Their shape, which holds if there is a number in every place; empty where the lists differ among each other.
    """
    depth = len(skeleton) - len(skeleton.lstrip(b"["))
    separator = b", " if b", " in skeleton else b","
    sizes: list[int] = []
    inner = b""  # what is left of one element: of a number, nothing
    for level in range(1, min(depth, MAX_DEPTH) + 1):
        stop = skeleton.find(b"]" * level) + level if level < depth else len(skeleton)
        lists = skeleton[depth - level : stop]
        size = (len(lists) - 2 + len(separator)) // (len(inner) + len(separator))
        if lists != b"[%b]" % separator.join([inner] * size):
            return ()
        sizes.append(size)
        inner = lists
    return tuple(reversed(sizes)) if inner == skeleton else ()


@lru_cache(KEPT)
def _known_shape(skeleton: bytes) -> tuple[int, ...]:
    return box_shape(skeleton)


def _end_of_box(body: bytes, start: int) -> int:
    """Where the lists that open at `start` end, if all of them have one shape."""
    opening = body[start : start + MAX_DEPTH]
    depth = len(opening) - len(opening.lstrip(b"["))
    # From behind, where it is near: what looks for two characters from the front stops at each of them.
    return body.find(b"]", start) + 1 if depth == 1 else body.rfind(b"]" * depth, start) + depth


def _parse(text: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _read_values(text: bytes) -> NDArray[np.uint8] | None:
    """All numbers of a text whose other characters are in their places; None where one is not for here."""
    codes = np.frombuffer(text, np.uint8) - _ZERO
    digit = codes < _BASE
    before, after = digit[:-1], digit[1:]
    last = before > after
    following, preceding = codes[1:], codes[:-1]
    # Directly behind a number there is a comma or its list's end, and before it no list's end.
    misplaced = last & ((following == _OPEN) | (following == _SPACE)) | (after > before) & (preceding == _CLOSE)
    if misplaced.any():
        return None
    values = _join_digits(codes, digit, last)
    if values is None:
        return None
    # A number of four digits, or one with a 0 in front, which JSON forbids, has more digits than were made of it.
    digits = values.size + np.count_nonzero(values >= _TEN) + np.count_nonzero(values >= _HUNDRED)
    return values if digits == np.count_nonzero(digit) else None


def _join_digits(
    codes: NDArray[np.uint8], digit: NDArray[np.bool_], last: NDArray[np.bool_]
) -> NDArray[np.uint8] | None:
    """The last three digits of each number as one, or None where they are more than a byte holds.

    Digits are put together at every character, in bytes, and then taken where numbers end: for each digit to be looked
    up there is slower.
    """
    there = digit.view(np.uint8)
    alone = codes * there
    ends = last[2:].nonzero()[0]
    below_100: NDArray[np.uint8] = (alone[2:-1] + alone[1:-2] * _TEN).take(ends)
    hundreds: NDArray[np.uint8] = (alone[:-3] * there[1:-2]).take(ends)
    if ((hundreds > _LARGEST_HUNDREDS) | (hundreds == _LARGEST_HUNDREDS) & (below_100 > _LARGEST_REST)).any():
        return None
    joined: NDArray[np.uint8] = below_100 + hundreds * _HUNDRED
    return joined

"""Answers become blocks, and blocks become rows of the database."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from server.predictions.answers import Answered, Entry, Lane, digest_of, digests_at_once, lane_of
from server.predictions.blocks import (
    GAP,
    ROWS,
    VERSION,
    group_answers,
    pack_gap,
    pack_rows,
    pack_version,
    unpack,
    unpack_gap,
)
from server.predictions.blocks import unpack_rows as read_rows
from server.predictions.contents import entry_of
from server.predictions.records import SEQUENCE_BITS, inputs_of, read_version, spell_rows
from server.predictions.storage import Gap, Input, Row
from tests.unit.server.prediction_factory import LANE, answered, entry, group, model


def spell(
    entries: Sequence[Entry], lane: Lane = LANE, inputs: Sequence[Input] = ()
) -> tuple[list[Row], dict[str, Input]]:
    """What the database gets of entries, by way of the spool's bytes."""
    content, first = pack_version(lane, 3), 5
    for made in group_answers(entries, inputs):
        content += pack_rows(made, 3, first)
        first += made.rows
    rows: list[Row] = []
    kept: dict[str, Input] = {}
    told = {}
    for kind, payload, _ in unpack(content):
        if kind == VERSION:
            number, version = read_version(payload)
            told[number] = version
        else:
            assert kind == ROWS
            block = read_rows(payload)
            rows += spell_rows(block, told[block.version], 2)
            kept |= inputs_of(block)
    return rows, kept


def late(*answers: Answered, lane: Lane = LANE) -> tuple[list[Row], dict[str, Input]]:
    found = [entry_of(one, lane, keep_inputs=True) for one in answers]
    return spell([one for one, _ in found], lane, [one for _, inputs in found for one in inputs])


def test_a_row_has_everything_in_the_order_of_the_columns() -> None:
    rows, inputs = spell([entry(b"picture", client="shop")])
    digest = hashlib.sha256(b"picture").hexdigest()
    top = '[["bright",0.7],["dark",0.2],["dim",0.1]]'
    facts = (1_000_500_000, "id", 0, "shop", "http", "grey", 7, "int8", digest, "bright", 0.7, top, 12_500)
    assert rows == [((2 << SEQUENCE_BITS) + 5, *facts)]
    assert inputs == {}


def test_each_picture_has_its_own_row_and_number() -> None:
    rows, _ = spell([entry(b"a", name="1"), entry(b"b", b"c", name="2"), entry(b"d", name="3", client="shop")])
    told = [(row[0] - (2 << SEQUENCE_BITS), row[2], row[3], row[4], row[9]) for row in rows]
    digest = {text: hashlib.sha256(text.encode()).hexdigest() for text in "abcd"}
    assert told == [
        (5, "1", 0, None, digest["a"]),
        (6, "2", 0, None, digest["b"]),
        (7, "2", 1, None, digest["c"]),
        (8, "3", 0, "shop", digest["d"]),
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_class_without_a_name_goes_by_its_number(dtype: type[Any]) -> None:
    rows, _ = spell([entry(b"c", output=np.array([[0.25, 0, 0.75]], dtype))], lane_of(model("other", ())))
    assert [(row[6], row[10], row[11]) for row in rows] == [("other", "2", 0.75)]


def test_what_is_no_classifier_has_no_label() -> None:
    plane, whole = np.zeros((1, 2, 2), np.float32), np.array([[1, 2, 3]])
    mixed = [entry(b"x", output=plane), entry(b"y"), entry(b"z", output=whole), entry(b"u", b"v")]
    told = {row[9]: (row[0] & 0xFF, row[10], row[11], row[12] == "[]") for row in spell(mixed)[0]}
    digest = {text: hashlib.sha256(text.encode()).hexdigest() for text in "xyzuv"}
    assert {name: told[digest[name]][1:] for name in "xyzuv"} == {
        "x": ("", None, True),
        "y": ("bright", 0.7, False),
        "z": ("", None, True),
        "u": ("bright", 0.7, False),
        "v": ("bright", 0.7, False),
    }
    assert sorted(number for number, *_ in told.values()) == [5, 6, 7, 8, 9]


def test_boxes_are_no_probabilities_though_there_are_as_many_as_requests() -> None:
    none, two = np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)
    assert [row[10] for row in spell([entry(b"x", output=none), entry(b"y", output=two)])[0]] == ["", ""]


@pytest.mark.parametrize("classes", [9, 1000])
def test_only_the_best_five_are_written(classes: int) -> None:
    shares = np.random.default_rng(1).permutation(np.linspace(0.5, 1, classes, dtype=np.float32))
    best = np.argsort(-shares)[:5]
    row = spell([entry(b"x", output=shares[None])])[0][0]
    told = json.loads(row[12])
    assert [name for name, _ in told] == [str(at) if at > 2 else ("dark", "dim", "bright")[at] for at in best]
    assert [share for _, share in told] == pytest.approx(shares[best].tolist(), abs=1e-6)
    assert (row[10], row[11]) == tuple(told[0])


@pytest.mark.parametrize(
    ("shares", "top"),
    [
        ([0.0004, 0.9991, 0.0005], [['di"m', 0.9991]]),  # a sure answer has one class to tell
        ([0.001, 0.0, 0.999], [["bright", 0.999], ["dark", 0.001]]),
        ([0.0, 0.0, 0.0], [["dark", 0.0]]),
        ([float("nan")] * 3, [["dark", 0.0]]),
    ],
)
def test_what_is_next_to_nothing_is_left_out(shares: list[float], top: list[list[Any]]) -> None:
    lane = lane_of(model(labels=("dark", 'di"m', "bright")))
    row = spell([entry(b"x", output=np.array([shares], np.float32))], lane)[0][0]
    assert json.loads(row[12]) == top
    assert row[10:12] == tuple(top[0])


def test_rows_of_tensors_are_told_by_their_own_bytes() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    names = np.array([b"ab", b"c"], object)
    rows, inputs = late(answered(rows=2, inputs={"image": pixels, "name": names}))
    contents = [pixels[0].tobytes() + b"\2\0\0\0ab", pixels[1].tobytes() + b"\1\0\0\0c"]
    assert [row[9] for row in rows] == [hashlib.sha256(one).hexdigest() for one in contents]
    assert [one.content for one in inputs.values()] == contents
    assert {one.form for one in inputs.values()} == {"uint8[3, 4], object[1]"}


def test_what_was_sent_belongs_to_its_digest() -> None:
    rows, inputs = late(answered(b"a", b"bb", name="1", client="shop"), answered(b"ccc", name="2"))
    assert [inputs[row[9]].content for row in rows] == [b"a", b"bb", b"ccc"]
    assert {one.form for one in inputs.values()} == {"encoded"}
    assert [row[4] for row in rows] == ["shop", "shop", None]


@pytest.mark.parametrize("size", [0, 1, 2047, 2048, 4094, 4095, 16_384, 16_385])
def test_a_digest_is_sha256_whatever_the_pieces(size: int) -> None:
    content = np.random.default_rng(size).bytes(size)
    assert digest_of(content) == digest_of(memoryview(content)) == hashlib.sha256(content).digest()


def test_what_is_digested_at_once_has_the_digests_that_it_would_have_later() -> None:
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    for one in (answered(b"a", b"b"), answered(b"a"), answered(rows=2, inputs={"image": pixels})):
        assert digests_at_once(one.images, one.inputs, one.rows) == entry_of(one, LANE, keep_inputs=False)[0][6]


@pytest.mark.parametrize(
    ("images", "inputs"),
    [
        ((bytes(16_385),), {}),
        ((bytes(9000), bytes(9000)), {}),
        ((), {"image": np.zeros((1, 16_385), np.uint8)}),
        ((), {"image": np.zeros((1, 4)), "name": np.zeros((1, 4))}),  # several inputs make one row
        ((), {"name": np.array([b"ab"], object)}),
        ((), {"image": np.zeros((2, 4))}),  # a model without a batch dimension
        ((), {}),  # answered from the cache
    ],
)
def test_what_takes_long_or_thought_is_not_digested_at_once(images: Any, inputs: Any) -> None:
    assert digests_at_once(images, inputs, len(images) or 1) is None


def test_half_a_character_in_a_name_does_not_cost_the_others() -> None:
    rows, _ = spell([entry(b"x", client="token:\ud800"), entry(b"y", client="shop")])
    assert [row[4] for row in rows] == ["token:?", "shop"]


def test_what_is_damaged_ends_the_reading_and_no_earlier() -> None:
    gap = Gap(1.5, 2.5, 7, "away")
    first, second = pack_gap(gap), pack_rows(group(entry(b"x")), 0, 0)
    assert [block.kind for block in unpack(first + second)] == [GAP, ROWS]
    assert unpack_gap(next(unpack(first)).payload) == gap
    for broken in (second[:-1], second[:5], second[:-1] + b"!", b"XX" + second[2:]):
        assert [block.kind for block in unpack(first + broken)] == [GAP]

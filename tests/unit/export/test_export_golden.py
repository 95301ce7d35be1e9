"""The golden set: which pictures, and that they decode to what Keras saw."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import ExportError
from export.golden import make_golden, to_png
from export.run_folder import Rows, Samples
from server.images import ImageSpec, decode

SPEC = ImageSpec(4, 5, 3)
NONE = Samples((), np.empty(0, np.int64))


def holdout(count: int) -> Rows:
    pixels = np.random.default_rng(count).integers(0, 256, (count, *SPEC.shape), np.uint8)
    return Rows(pixels, np.arange(count))


@given(st.integers(1, 40), st.integers(1, 50))
def test_hold_out_rows_fill_up_each_once(count: int, wanted: int) -> None:
    golden = make_golden(NONE, holdout(count), SPEC, wanted)
    assert len(golden.files) == min(wanted, count)
    assert len(set(golden.labels.tolist())) == len(golden.files)
    assert np.array_equal(golden.pixels, holdout(count).pixels[golden.labels])


def test_samples_come_first_and_all_are_kept() -> None:
    rows = holdout(5)
    samples = Samples(tuple(to_png(row) for row in rows.pixels[:3]), np.array([7, 8, 9]))
    assert make_golden(samples, rows, SPEC, 2).labels.tolist() == [7, 8, 9]
    assert make_golden(samples, rows, SPEC, 4).labels.tolist() == [7, 8, 9, 0]


@given(st.sampled_from([1, 3]), st.integers(0, 2**32))
def test_png_loses_nothing(channels: int, seed: int) -> None:
    row = np.random.default_rng(seed).integers(0, 256, (6, 7, channels), np.uint8)
    assert np.array_equal(decode(to_png(row), ImageSpec(6, 7, channels)), row)


def test_arrays_cut_back_into_the_files() -> None:
    golden = make_golden(NONE, holdout(3), SPEC, 3)
    arrays = golden.arrays(np.zeros((3, 2), np.float32))
    ends, data = arrays["offsets"], arrays["encoded"].tobytes()
    assert tuple(data[int(ends[at]) : int(ends[at + 1])] for at in range(3)) == golden.files


def test_a_sample_that_is_no_picture_is_said() -> None:
    with pytest.raises(ExportError, match=r"samples\.npz holds a file that the server would refuse"):
        make_golden(Samples((b"text",), np.array([0])), holdout(2), SPEC, 1)

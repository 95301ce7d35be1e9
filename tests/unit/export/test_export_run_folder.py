"""Run folders as they may be found: complete, unfinished, damaged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.errors import ExportError
from export.run_folder import find_run

FACTS = {"schema": 1, "image": {"height_px": 4, "width_px": 5, "channels": 3}, "labels": ["a", "b"]}


def make_run(runs: Path, number: int, **changes: Any) -> Path:
    folder = runs / "m" / str(number)
    folder.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"keras")
    (folder / "run.json").write_text(json.dumps({**FACTS, **changes}))
    return folder


def test_latest_is_the_largest_finished_number(tmp_path: Path) -> None:
    for number in (2, 10, 9):
        make_run(tmp_path, number)
    (make_run(tmp_path, 11) / "run.json").unlink()
    (tmp_path / "m" / ".12.partial-x").mkdir()
    assert find_run(tmp_path, "m").number == 10
    assert find_run(tmp_path, "m", "9").folder == tmp_path / "m" / "9"


@pytest.mark.parametrize("number", ["11", "0", "-1", "newest", "9.0", ""])
def test_another_number_names_those_that_are_there(tmp_path: Path, number: str) -> None:
    make_run(tmp_path, 9)
    with pytest.raises(ExportError, match="expected --run latest or one of 9"):
        find_run(tmp_path, "m", number)


def test_no_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="make train NAME=m"):
        find_run(tmp_path, "m")


def test_no_model_is_said(tmp_path: Path) -> None:
    (make_run(tmp_path, 1) / "model.keras").unlink()
    with pytest.raises(ExportError, match="expected a Keras model at"):
        find_run(tmp_path, "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "expected schema 1, received 2"),
        ({"labels": []}, "expected a list of distinct labels"),
        ({"labels": ["a", "a"]}, "expected a list of distinct labels"),
        ({"image": {"height_px": 4}}, "expected image and labels"),
        ({"image": {"height_px": 4, "width_px": 4, "channels": 2}}, "received 2"),
    ],
)
def test_a_wrong_run_json_is_said(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make_run(tmp_path, 1, **changes)
    with pytest.raises(ExportError, match=message):
        find_run(tmp_path, "m")


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_damaged_run_json_is_said(tmp_path: Path, text: str) -> None:
    (make_run(tmp_path, 1) / "run.json").write_text(text)
    with pytest.raises(ExportError, match=r"run\.json"):
        find_run(tmp_path, "m")


GOOD_ROWS = np.zeros((2, 4, 5, 3), np.uint8)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (
            np.zeros((2, 5, 4, 3), np.uint8),
            [0, 1],
            r"expected rows uint8\[n, 4, 5, 3\] .* received uint8\[2, 5, 4, 3\]",
        ),
        (np.zeros((2, 4, 5, 3), np.float32), [0, 1], r"received float32\[2, 4, 5, 3\]"),
        (np.zeros((0, 4, 5, 3), np.uint8), [], "at least one row"),
        (GOOD_ROWS, [0], "expected one label for each row"),
        (GOOD_ROWS, [0, 2], r"expected labels 0\.\.1, received 0\.\.2"),
        (GOOD_ROWS, [-1, 0], r"received -1\.\.0"),
    ],
)
def test_rows_that_do_not_fit_are_said(tmp_path: Path, rows: Any, labels: list[int], message: str) -> None:
    np.savez(make_run(tmp_path, 1) / "calibration.npz", rows=rows, labels=np.array(labels, np.int64))
    with pytest.raises(ExportError, match=message):
        find_run(tmp_path, "m").rows("calibration")


@pytest.mark.parametrize("data", [None, b"", b"PK\x03\x04 truncated", b"text"])
def test_a_damaged_archive_is_said(tmp_path: Path, data: bytes | None) -> None:
    folder = make_run(tmp_path, 1)
    if data is not None:
        (folder / "holdout.npz").write_bytes(data)
    with pytest.raises(ExportError, match=r"holdout\.npz"):
        find_run(tmp_path, "m").rows("holdout")


def test_an_archive_without_its_arrays_is_said(tmp_path: Path) -> None:
    np.savez(make_run(tmp_path, 1) / "holdout.npz", pixels=GOOD_ROWS)
    with pytest.raises(ExportError, match="expected arrays rows, labels"):
        find_run(tmp_path, "m").rows("holdout")


def test_samples_come_back_one_by_one(tmp_path: Path) -> None:
    folder = make_run(tmp_path, 1)
    assert find_run(tmp_path, "m").samples().files == ()
    encoded = np.frombuffer(b"onethree", np.uint8)
    np.savez(folder / "samples.npz", encoded=encoded, offsets=np.array([0, 3, 8]), labels=np.array([0, 1]))
    assert find_run(tmp_path, "m").samples().files == (b"one", b"three")
    np.savez(folder / "samples.npz", encoded=encoded, offsets=np.array([0, 3, 9]), labels=np.array([0, 1]))
    with pytest.raises(ExportError, match="offsets do not fit"):
        find_run(tmp_path, "m").samples()

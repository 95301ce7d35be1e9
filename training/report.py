"""One HTML page about a run, with every figure and picture inside: it can be mailed, and asks nothing of a network."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.files import replacing

FILE: Final = "report.html"
CONFUSED_PAIRS: Final = 12

_TEMPLATES: Final = Path(__file__).parent / "templates"
_OMITTED: Final = (
    "schema",
    "key",
    "name",
    "run",
    "labels",
    "model_settings",
    "tools",
    "data",
    "image",
    "preprocessing",
)


def write(folder: Path, record: Mapping[str, Any], measured: Mapping[str, Any], wrong_rows: NDArray[np.uint8]) -> None:
    """Writes `report.html`.

    Args:
        folder: The run folder, with the figures in place.
        record: What `run.json` holds, or will hold.
        measured: What `metrics.json` holds.
        wrong_rows: The pictures of `measured["most_wrong"]`, `uint8[m, h, w, c]`.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    test = measured["test"]
    page = environment.get_template(FILE).render(
        record=record,
        measured=measured,
        test=test,
        calibration=measured.get("calibration"),
        figures={file.stem: _data_uri(file.read_bytes()) for file in sorted((folder / "figures").glob("*.png"))},
        wrong=[line | {"source": _picture(row)} for line, row in zip(measured["most_wrong"], wrong_rows, strict=True)],
        confused=confused(test["confusion"], record["labels"]),
        settings={key: value for key, value in record.items() if key not in _OMITTED},
    )
    with replacing(folder / FILE) as stream:
        # A folder's name that is no UTF-8 reaches Python as lone surrogates, which no page can hold.
        stream.write(page.encode("utf-8", "backslashreplace"))


def confused(matrix: Sequence[Sequence[int]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Lists the pairs of classes that are most often taken for one another.

    Args:
        matrix: Rows: truth, columns: prediction.
        names: `names[i]` names class i.

    Returns:
        The most frequent first: `truth`, `predicted`, `rows`, and their `share` of the true class.
    """
    counts = np.array(matrix)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:CONFUSED_PAIRS]
    pairs = ((int(index) // len(names), int(index) % len(names)) for index in order)
    return [
        {
            "truth": names[truth],
            "predicted": names[predicted],
            "rows": int(counts[truth, predicted]),
            "share": float(counts[truth, predicted] / totals[truth]),
        }
        for truth, predicted in pairs
        if counts[truth, predicted]
    ]


def _picture(row: NDArray[np.uint8]) -> str:
    encoded = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(encoded, format="PNG")
    return _data_uri(encoded.getvalue())


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"

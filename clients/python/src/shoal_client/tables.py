"""How `shoal-classify` writes what it found: a row for each picture and class, or a JSON object for each picture."""

import csv
import json
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from shoal_client.errors import ShoalError
from shoal_client.results import Answer

COLUMNS: Final = ("file", "rank", "label", "index", "probability", "model", "version", "error")


class Writer(Protocol):
    """One way to write results."""

    def write(self, path: Path, result: Answer | ShoalError) -> None:
        """Writes one picture's result."""

    def finish(self) -> None:
        """Writes what ends the document."""


class CsvWriter:
    """RFC 4180 with a header: a row for each picture and class, or one with `error`.

    Args:
        stream: Where it goes.
    """

    def __init__(self, stream: TextIO) -> None:
        self._rows = csv.writer(stream, lineterminator="\n")
        self._rows.writerow(COLUMNS)

    def write(self, path: Path, result: Answer | ShoalError) -> None:
        """Writes one picture's result.

        Args:
            path: The picture.
            result: Its answer or error.
        """
        if isinstance(result, ShoalError):
            self._rows.writerow((path, "", "", "", "", "", "", result))
            return
        for rank, score in enumerate(result.predictions[0].classes, 1):
            probability = f"{score.probability:.6f}"
            self._rows.writerow((path, rank, score.label, score.index, probability, result.model, result.version, ""))

    def finish(self) -> None:
        """Nothing ends a CSV file."""


class JsonWriter:
    """One JSON array, or one object on each line.

    Args:
        stream: Where it goes.
        lines: Whether each picture is a line of its own (JSON Lines).
    """

    def __init__(self, stream: TextIO, *, lines: bool) -> None:
        self._stream = stream
        self._lines = lines
        self._begun = False

    def write(self, path: Path, result: Answer | ShoalError) -> None:
        """Writes one picture's result.

        Args:
            path: The picture.
            result: Its answer or error.
        """
        text = json.dumps(_document(path, result), ensure_ascii=False)
        before = "" if self._lines else (",\n " if self._begun else "[")
        self._stream.write(f"{before}{text}" + ("\n" if self._lines else ""))
        self._begun = True

    def finish(self) -> None:
        """Closes the array."""
        if not self._lines:
            self._stream.write("]\n" if self._begun else "[]\n")


def make_writer(kind: str, stream: TextIO) -> Writer:
    """The writer of a format.

    Args:
        kind: csv, json or jsonl.
        stream: Where it goes.
    """
    return CsvWriter(stream) if kind == "csv" else JsonWriter(stream, lines=kind == "jsonl")


def _document(path: Path, result: Answer | ShoalError) -> dict[str, Any]:
    if isinstance(result, ShoalError):
        return {"file": str(path), "error": str(result)}
    classes = [
        {"label": score.label, "index": score.index, "probability": round(score.probability, 6)}
        for score in result.predictions[0].classes
    ]
    return {"file": str(path), "model": result.model, "version": result.version, "classes": classes}

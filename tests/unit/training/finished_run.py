"""A run folder in every file that evaluation and explanation read, around a model that was made by hand."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

# What `run.json` has to hold besides what `runs.publish` adds.
FACTS: Final = {
    "model": "cnn",
    "image": {"height_px": 8, "width_px": 8, "channels": 3},
    "labels": ["cat", "dog"],
    "epochs": 2,
    "parameters": 1234,
    "created_at": "2030-01-02T03:04:05Z",
}


def png(row: Pixels) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[-1] == 1 else row).save(encoded, format="PNG")
    return encoded.getvalue()


def write_run(
    root: Path, model: Any, rows: Pixels, labels: NDArray[np.int64], names: Sequence[str], **record: Any
) -> Path:
    """Writes `<root>/1`; the test split is `rows`, and its first 8 pictures are the samples."""
    folder = root / "1"
    folder.mkdir(parents=True)
    model.save(folder / "model.keras")
    np.savez(folder / "holdout.npz", rows=rows, labels=labels)
    files = [png(row) for row in rows[:8]]
    np.savez(
        folder / "samples.npz",
        encoded=np.frombuffer(b"".join(files), np.uint8),
        offsets=np.cumsum([0, *map(len, files)]),
        labels=labels[:8],
    )
    with (folder / "history.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "duration_s"])
        writer.writerows([[1, 2.0, 0.3, 1.9, 0.4, 0.001, 3.0], [2, 1.5, 0.5, 1.6, 0.45, 0.001, 2.0]])
    height_px, width_px, channels = rows.shape[1:]
    facts = FACTS | {
        "schema": 1,
        "name": root.name,
        "run": 1,
        "model_settings": {"filters": [8]},
        "image": {"height_px": height_px, "width_px": width_px, "channels": channels},
        "labels": list(names),
        "git_revision": "0" * 40,
        "duration_s": 5.0,
        "parameters": model.count_params(),
        "data": {"source": "made by hand", "fingerprint": "sha256:0", "rows": {"train": 1, "test": len(rows)}},
        "tools": {"keras": "3"},
    }
    (folder / "run.json").write_text(json.dumps(facts | record))
    validation = {"accuracy": 0.45, "loss": 1.6, "rows": 10}
    (folder / "metrics.json").write_text(json.dumps({"validation": validation, "test": {}}))
    return folder

"""Real pictures to send: the golden set that every bundle of ours carries."""

import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """Encoded pictures for one model.

    Args:
        model: The model's name.
        files: JPEG or PNG bytes.
        labels: Class index of each.
        shape: Height, width and channels of the model's image input.
    """

    model: str
    files: tuple[bytes, ...]
    labels: tuple[int, ...]
    shape: tuple[int, int, int]


def newest_bundle(models: Path, name: str = "") -> Path:
    """The folder of the highest version of a model.

    Args:
        models: Folder of bundles.
        name: The model; empty for the first by name.

    Raises:
        FileNotFoundError: There is no such bundle.
    """
    names = [name] if name else sorted(folder.name for folder in models.iterdir() if folder.is_dir())
    for candidate in names:
        versions = [folder for folder in (models / candidate).iterdir() if folder.name.isdigit()]
        if versions:
            return max(versions, key=lambda folder: int(folder.name))
    raise FileNotFoundError(f"expected a bundle in {models}/<name>/<version>/, found none: run make export first")


def golden_pictures(bundle: Path) -> Pictures:
    """Reads a bundle's golden set.

    Args:
        bundle: `<models>/<name>/<version>`.
    """
    manifest = json.loads((bundle / "manifest.json").read_text())
    preprocessing = manifest["preprocessing"]
    with np.load(bundle / manifest["golden"]["file"]) as golden:
        encoded, offsets = golden["encoded"].tobytes(), golden["offsets"].tolist()
        labels = tuple(golden["labels"].tolist())
    files = tuple(encoded[start:end] for start, end in itertools.pairwise(offsets))
    shape = (preprocessing["height"], preprocessing["width"], preprocessing["channels"])
    return Pictures(manifest["name"], files, labels, shape)

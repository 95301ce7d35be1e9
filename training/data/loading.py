"""From the user's words to arrays: `load` is the one door to data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server.images import ImageSpec
from training import console
from training.data import folders
from training.data.catalogue import Catalogue, Item
from training.data.reading import Survey, decode, survey
from training.data.splits import parted
from training.errors import TrainingError
from training.settings import EMBEDDED, TrainSettings

DEFAULT_SIZE_PX: Final = (64, 64)  # shapes remain visible and an epoch stays affordable
OWN_SIZE_UP_TO_PX: Final = 256  # larger pictures are photographs, which fill the memory and the day at their own size


@dataclass(frozen=True, slots=True)
class Split:
    """One split in memory.

    Args:
        rows: `uint8[n, height, width, channels]`.
        labels: Class indices, `int64[n]`.
        items: The pictures that the rows were decoded from, in the same order.
    """

    rows: NDArray[np.uint8]
    labels: NDArray[np.int64]
    items: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Dataset:
    """What training learns from and is measured on.

    Args:
        source: The folder's name, or the embedded set's.
        labels: `labels[i]` names class i.
        image: What a row is.
        fingerprint: Of the whole data set on disk, whatever part of it is used.
        train: Learnt from.
        validation: Decides when to stop and which epoch is best.
        test: Touched once, at the end.
    """

    source: str
    labels: tuple[str, ...]
    image: ImageSpec
    fingerprint: str
    train: Split
    validation: Split
    test: Split


def load(settings: TrainSettings) -> Dataset:
    """Finds, checks, splits and decodes the data.

    Raises:
        TrainingError: The data are missing, laid out otherwise, or hold a file that is no picture.
    """
    catalogue = catalogue_of(settings.data)
    surveyed = survey(catalogue)
    image = _image_spec(settings, surveyed)
    train, validation = _train_and_validation(catalogue, settings)
    return Dataset(
        source=catalogue.source,
        labels=catalogue.labels,
        image=image,
        fingerprint=surveyed.fingerprint,
        train=_decoded(train, image),
        validation=_decoded(validation, image),
        test=_decoded(catalogue.of("test"), image),
    )


def catalogue_of(data: str) -> Catalogue:
    """Lists what `--data` names: the embedded digits or a folder.

    Raises:
        TrainingError: There is no such data.
    """
    if data == EMBEDDED:
        from training.data import digits  # noqa: PLC0415 (scikit-learn takes a second to import)

        return digits.catalogue()
    return folders.catalogue(Path(data))


def _image_spec(settings: TrainSettings, surveyed: Survey) -> ImageSpec:
    channels = int(settings.channels) if settings.channels != "auto" else 1 if surveyed.grey else 3
    if settings.size_px:
        return ImageSpec(*settings.size_px, channels)
    largest = max(max(size) for size in surveyed.sizes_px)
    if len(surveyed.sizes_px) == 1 and largest <= OWN_SIZE_UP_TO_PX:
        return ImageSpec(*next(iter(surveyed.sizes_px)), channels)
    height, width = DEFAULT_SIZE_PX
    console.say(
        f"note: the pictures have {len(surveyed.sizes_px):,} different sizes, the longest side {largest:,} pixels;"
        f" resizing all to {height}x{width} (choose with --image-size)"
    )
    return ImageSpec(height, width, channels)


def _train_and_validation(catalogue: Catalogue, settings: TrainSettings) -> tuple[Sequence[Item], Sequence[Item]]:
    train, validation = catalogue.of("train"), catalogue.of("validation")
    if not validation:
        held_out, kept = parted(_labels(train), settings.validation_fraction, settings.seed)
        train, validation = _chosen(train, kept), _chosen(train, held_out)
    if settings.fraction < 1:
        used, _ = parted(_labels(train), settings.fraction, settings.seed)
        train = _chosen(train, used)
    missing = sorted(set(range(len(catalogue.labels))) - {item.label for item in train})
    if missing:
        raise TrainingError(
            f"expected training pictures of every class, received none of {catalogue.labels[missing[0]]} after"
            " splitting; add pictures, raise --fraction or lower --validation-fraction"
        )
    return train, validation


def _chosen(items: Sequence[Item], indices: NDArray[np.int64]) -> tuple[Item, ...]:
    return tuple(items[index] for index in indices.tolist())


def _labels(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([item.label for item in items], dtype=np.int64)


def _decoded(items: Sequence[Item], image: ImageSpec) -> Split:
    rows = decode(items, image, f"decoding {len(items):,} pictures")
    return Split(rows, _labels(items), tuple(items))

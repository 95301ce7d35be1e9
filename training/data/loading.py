"""From the user's words to arrays: `load` is the one door to data."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from server.images import ImageSpec
from training import console, runs
from training.data import memory, quarantine, row_cache
from training.data.catalogue import UNDIVIDED, Catalogue, Item, ordered, shortly
from training.data.reading import Survey, decode, survey
from training.data.sources import catalogue_of
from training.data.splits import SHARES, divided, parted
from training.errors import TrainingError
from training.settings import TrainSettings

DEFAULT_SIZE_PX: Final = (64, 64)  # shapes remain visible and an epoch stays affordable
OWN_SIZE_UP_TO_PX: Final = 256  # larger pictures are photographs, which fill the memory and the day at their own size


@dataclass(frozen=True, slots=True)
class Split:
    """One split.

    Args:
        rows: `uint8[n, height, width, channels]`; a `numpy.memmap` if they exceed the memory limit.
        labels: Class indices, `int64[n]`.
        items: The pictures that the rows were decoded from, in the same order.
    """

    rows: NDArray[np.uint8]
    labels: NDArray[np.int64]
    items: tuple[Item, ...]

    @property
    def in_memory(self) -> bool:
        """Whether the rows are held in memory, so that a copy of them may be too."""
        return not isinstance(self.rows, np.memmap)


@dataclass(frozen=True, slots=True)
class Dataset:
    """What training learns from and is measured on.

    Args:
        source: The folder's name, or the embedded set's.
        labels: `labels[i]` names class i.
        image: What a row is.
        fingerprint: Of the whole data set on disk less what is in quarantine, whatever part of it is used.
        train: Learnt from.
        validation: Decides when to stop and which epoch is best.
        test: Touched once, at the end.
        record: What `run.json` keeps under `data`: source, form, fingerprint, how it was split, and what was left out.
    """

    source: str
    labels: tuple[str, ...]
    image: ImageSpec
    fingerprint: str
    train: Split
    validation: Split
    test: Split
    record: Mapping[str, Any] = field(default_factory=dict)


def load(settings: TrainSettings) -> Dataset:
    """Finds, checks, splits and decodes the data.

    Raises:
        TrainingError: The data are missing, laid out otherwise, or hold a file that is no picture.
    """
    catalogue, left_out = quarantine.apply(catalogue_of(settings.data), settings.quarantine)
    surveyed = survey(catalogue)
    note = changed_since(settings.runs, settings.run_name, surveyed.fingerprint)
    if note:
        console.say(f"note: {note}")
    image = _image_spec(settings, surveyed)
    whole = _divided(catalogue, surveyed.hashes, settings.split_seed)
    train, validation = _train_and_validation(whole, settings)
    parts = {"train": train, "validation": validation, "test": whole.of("test")}
    return Dataset(
        source=catalogue.source,
        labels=catalogue.labels,
        image=image,
        fingerprint=surveyed.fingerprint,
        record=_record(catalogue, surveyed, settings, left_out, parts),
        **_decoded(parts, image, surveyed.fingerprint, settings),
    )


def changed_since(root: Path, name: str, fingerprint: str) -> str | None:
    """Compares a data set with the one that the latest run of a name learnt from.

    Args:
        root: The folder of all runs.
        name: The run's name.
        fingerprint: Of the data at hand.

    Returns:
        What to tell a person, or nothing if the data are the same or there is no such run.
    """
    try:
        latest = runs.resolve(root, str((root / name).absolute()))
        before = str(latest.record["data"]["fingerprint"])
    except (TrainingError, KeyError, TypeError):
        return None  # no run of this name that this version can read
    if before == fingerprint:
        return None
    return (
        f"the data have changed since the run {latest.name}/{latest.number} ({before[:19]}…, now {fingerprint[:19]}…);"
        " figures of the two are not of the same data"
    )


def _divided(catalogue: Catalogue, hashes: Sequence[str], seed: int) -> Catalogue:
    if catalogue.splits != (UNDIVIDED,):
        return catalogue
    items = ordered(catalogue.items)
    different = {(item.label, content) for item, content in zip(items, hashes, strict=True)}
    distinct = Counter(label for label, _ in different)
    few = [label for index, label in enumerate(catalogue.labels) if distinct[index] < len(SHARES)]
    if few:
        raise TrainingError(
            f"expected at least {len(SHARES)} different pictures in every class of '{catalogue.source}', one for each"
            f" split, received fewer in {shortly(few)}; add pictures or remove the class"
        )
    splits = divided(_labels(items), hashes, seed)
    return replace(
        catalogue, items=tuple(replace(item, split=split) for item, split in zip(items, splits, strict=True))
    )


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


def _record(
    catalogue: Catalogue, surveyed: Survey, settings: TrainSettings, left_out: int, parts: Mapping[str, Sequence[Item]]
) -> dict[str, Any]:
    return {
        "source": catalogue.source,
        "form": catalogue.form,
        "fingerprint": surveyed.fingerprint,
        "rows": {split: len(items) for split, items in parts.items()},
        "split": _split_record(catalogue, settings),
        # Two runs with the same value learnt from the same pictures, and were measured on the same.
        "members": {split: _members(catalogue.labels, items) for split, items in parts.items()},
        "fraction": settings.fraction,
        "quarantine": {"file": Path(settings.quarantine).name, "left_out": left_out} if settings.quarantine else None,
    }


def _split_record(catalogue: Catalogue, settings: TrainSettings) -> dict[str, Any]:
    if catalogue.splits == (UNDIVIDED,):
        return {"by": "split_seed", "seed": settings.split_seed, "shares": dict(SHARES)}
    if "validation" in catalogue.splits:
        return {"by": "data"}
    return {
        "by": "data",
        "validation": {"by": "seed", "seed": settings.seed, "share_of_train": settings.validation_fraction},
    }


def _members(labels: Sequence[str], items: Sequence[Item]) -> str:
    lines = sorted(f"{labels[item.label]}\0{item.key}\n" for item in items)
    return f"sha256:{hashlib.sha256(''.join(lines).encode('utf-8', 'surrogateescape')).hexdigest()}"


def _chosen(items: Sequence[Item], indices: NDArray[np.int64]) -> tuple[Item, ...]:
    return tuple(items[index] for index in indices.tolist())


def _labels(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([item.label for item in items], dtype=np.int64)


def _decoded(
    parts: Mapping[str, Sequence[Item]], image: ImageSpec, fingerprint: str, settings: TrainSettings
) -> dict[str, Split]:
    """Decodes every split: into memory where all of them fit, else into files."""
    needed_bytes = sum(map(len, parts.values())) * image.height_px * image.width_px * image.channels
    fits = needed_bytes <= memory.limit_bytes(settings.memory_limit_mb)
    if not fits:
        console.say(
            f"note: the decoded pictures take {needed_bytes / 1e6:,.0f} MB, more than memory allows"
            f" (--memory-limit-mb); they stay in {settings.cache_folder}"
        )

    def rows(split: str, items: Sequence[Item]) -> NDArray[np.uint8]:
        description = f"decoding {len(items):,} pictures ({split})"
        if fits:
            return decode(items, image, description)
        return row_cache.rows(items, image, fingerprint, settings.cache_folder, description)

    return {split: Split(rows(split, items), _labels(items), tuple(items)) for split, items in parts.items()}

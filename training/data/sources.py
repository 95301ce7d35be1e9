"""Which source `--data` names."""

from pathlib import Path
from typing import Final

from training.data import cifar, folders, idx, keras_sets, npz, packed
from training.data.catalogue import Catalogue
from training.errors import TrainingError
from training.settings import EMBEDDED

# A stray `meta` beside class folders makes them no CIFAR-100, so a folder is known by the files that hold pictures.
_TELLING: Final = cifar.NEEDED | idx.KNOWN
_PUBLISHED: Final = cifar.KNOWN | idx.KNOWN
KINDS: Final = (
    f"expected '{EMBEDDED}', '{keras_sets.PREFIX}NAME', a folder {folders.LAYOUT}, a folder {folders.UNDIVIDED_LAYOUT},"
    " CIFAR-10, CIFAR-100 or MNIST as published (a folder or a .tar.gz), or an .npz file"
)


def catalogue_of(data: str) -> Catalogue:
    """Lists what `--data` names.

    Raises:
        TrainingError: There is no such data.
    """
    if data == EMBEDDED:
        from training.data import digits  # noqa: PLC0415 (scikit-learn takes a second to import)

        return digits.catalogue()
    if data.startswith(keras_sets.PREFIX):
        return keras_sets.catalogue(data.removeprefix(keras_sets.PREFIX))
    return _from_disk(Path(data))


def _from_disk(path: Path) -> Catalogue:
    if path.is_dir():
        return _published(path) if packed.names_in(path, _TELLING) else folders.catalogue(path)
    if not path.is_file():
        raise TrainingError(f"no data folder {path}; {KINDS}")
    if path.suffix.lower() == ".npz":
        return npz.catalogue(path, packed.stem(path))
    if packed.is_archive(path):
        return _published(path)
    raise TrainingError(f"{path} is a file of another kind; {KINDS}")


def _published(path: Path) -> Catalogue:
    files = packed.read(path, _PUBLISHED)
    if files.keys() & idx.KNOWN:
        return idx.catalogue(path, packed.stem(path), files)
    if files.keys() & cifar.KNOWN:
        return cifar.catalogue(path, packed.stem(path), files)
    raise TrainingError(f"expected CIFAR's or MNIST's files in {path}, received none; unpack it and name the folder")

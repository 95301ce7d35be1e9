"""Files of known names, out of a folder or a tar archive; nothing is unpacked onto the disk."""

import tarfile
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Final

from training.errors import TrainingError

# Into which folder of their own the published archives unpack; torchvision keeps MNIST's files in MNIST/raw.
_INNER: Final = (
    "", "cifar-10-batches-bin", "cifar-10-batches-py", "cifar-100-binary", "cifar-100-python", "raw", "MNIST/raw",
)  # fmt: skip
ARCHIVES: Final = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2")


def is_archive(path: Path) -> bool:
    """Whether a name is a tar archive's."""
    return path.name.lower().endswith(ARCHIVES)


def stem(path: Path) -> str:
    """Returns a folder's name, or a file's without the endings of archives and arrays."""
    name = path.resolve().name
    ending = next((end for end in sorted((*ARCHIVES, ".npz"), key=len, reverse=True) if name.lower().endswith(end)), "")
    return name.removesuffix(name[len(name) - len(ending) :]) if ending else name


def names_in(path: Path, known: AbstractSet[str]) -> frozenset[str]:
    """Lists which of the known file names a folder holds, at its top or in the folder that archives unpack into.

    Args:
        path: A folder.
        known: Names, without folders.
    """
    return frozenset(file.name for file in _known_files(path, known))


def read(path: Path, known: AbstractSet[str]) -> dict[str, bytes]:
    """Reads the files of known names.

    Args:
        path: A folder, or a tar archive, compressed or not.
        known: Names, without folders; other files are passed over.

    Returns:
        Name → contents.

    Raises:
        TrainingError: The archive is damaged or a file cannot be read.
    """
    try:
        if path.is_dir():
            return {file.name: file.read_bytes() for file in _known_files(path, known)}
        return _from_archive(path, known)
    except (OSError, tarfile.TarError, EOFError, ValueError) as error:
        raise TrainingError(f"cannot read {path} ({error}); download it again, or name another with --data") from error


def _known_files(path: Path, known: AbstractSet[str]) -> list[Path]:
    for inner in _INNER:
        found = [path / inner / name for name in sorted(known) if (path / inner / name).is_file()]
        if found:
            return found
    return []


def _from_archive(path: Path, known: AbstractSet[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    with tarfile.open(path) as archive:
        for (
            member
        ) in archive:  # in the archive's order: a compressed one cannot be read any other way without rewinding
            name = member.name.rpartition("/")[2]
            stream = archive.extractfile(member) if member.isfile() and name in known else None
            if stream is not None:
                found[name] = stream.read()
    return found

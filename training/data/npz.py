"""NumPy archives with the arrays that `keras.datasets` gives: `x_train`, `y_train`, `x_test`, `y_test`."""

import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from training.data import arrays
from training.data.arrays import Labelled
from training.data.catalogue import Catalogue
from training.errors import TrainingError

_NEEDED: Final = ("x_train", "y_train", "x_test", "y_test")
_VALIDATION: Final = ("x_val", "y_val")
_NAMES: Final = "labels"


def catalogue(path: Path, source: str) -> Catalogue:
    """Reads an `.npz` file; `x_val` and `y_val`, and the classes' names as `labels`, may be added to the four.

    Args:
        path: The file.
        source: What the data are called.

    Raises:
        TrainingError: The file is damaged, lacks an array, or holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            content = {name: stored[name] for name in (*_NEEDED, *_VALIDATION, _NAMES) if name in stored.files}
            found = sorted(stored.files)
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise TrainingError(f"cannot read {path} ({error}); expected plain arrays saved by numpy.savez") from error
    missing = [name for name in _NEEDED if name not in content]
    if missing:
        raise TrainingError(
            f"expected the arrays {', '.join(_NEEDED)} in {path}, received {', '.join(found) or 'none'};"
            f" save it again with {', '.join(missing)}"
        )
    splits = {split: Labelled(content[f"x_{split}"], content[f"y_{split}"]) for split in ("train", "test")}
    if set(_VALIDATION) <= content.keys():
        splits["validation"] = Labelled(content["x_val"], content["y_val"])
    return arrays.catalogue(source, "npz", splits, tuple(map(str, content.get(_NAMES, np.array([])).ravel())))

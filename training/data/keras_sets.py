"""The picture sets that Keras downloads: `--data keras:cifar10`."""

from typing import Any, Final

from training import console
from training.data import arrays, class_names
from training.data.arrays import Labelled
from training.data.catalogue import Catalogue
from training.errors import TrainingError
from training.quiet import quiet_import

PREFIX: Final = "keras:"
NAMES: Final = {
    "mnist": (),
    "fashion_mnist": class_names.FASHION,
    "cifar10": class_names.CIFAR_10,
    "cifar100": class_names.CIFAR_100,
}


def catalogue(name: str) -> Catalogue:
    """Has Keras load a set, from its own cache (`KERAS_HOME`, else `~/.keras`) or from the network.

    Args:
        name: One of `NAMES`.

    Raises:
        TrainingError: The name is unknown, or the set is neither in the cache nor to be had.
    """
    if name not in NAMES:
        raise TrainingError(f"expected {PREFIX} and one of {', '.join(NAMES)}; received '{PREFIX}{name}'")
    console.say(f"note: Keras keeps or downloads {name}")
    (train_rows, train_labels), (test_rows, test_labels) = _loaded(name)
    splits = {"train": Labelled(train_rows, train_labels), "test": Labelled(test_rows, test_labels)}
    return arrays.catalogue(name, f"keras.datasets.{name}", splits, NAMES[name])


def _loaded(name: str) -> Any:
    with quiet_import():
        import keras  # noqa: PLC0415 (seconds to import, and only this source needs it)
    try:
        return getattr(keras.datasets, name).load_data()
    except Exception as error:  # Keras wraps what the network says in a bare Exception
        raise TrainingError(
            f"Keras cannot load {name} ({error}); connect to a network, put its file into the folder datasets/ of the"
            " Keras cache (KERAS_HOME, or ~/.keras), or download the set yourself and name the file with --data"
        ) from error

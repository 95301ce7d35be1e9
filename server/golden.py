"""A bundle's own pictures with the answers that are known for them, replayed before a version may serve.

    golden.npz ──server.images.decode──▶ rows ──executor──▶ probabilities ──near enough to the stored ones?──▶ serve

This is what catches a graph that loads and runs but answers wrongly here: spoiled weights, a runtime or an instruction
set that computes int8 otherwise than the machine that exported, a decoder that changed.
"""

import itertools
import math
import zipfile
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from server import images
from server.bundle import REFERENCE_VARIANT, Bundle, VariantFile
from server.errors import BundleError, UnsupportedImage
from server.executor import Engine

# How unlikely so many disagreements must be, if the measured agreement is true, before a variant is refused: a sound
# bundle is refused once in ten thousand. With 32 pictures and an agreement of 98.5 % over 1,000 rows that allows 5
# disagreements; spoiled weights, which agree by chance alone, have 29 or so among ten classes.
SIGNIFICANCE: Final = 1e-4
UNKNOWN_AGREEMENT: Final = 0.95  # what is supposed of a variant whose manifest gives none
UNKNOWN_ROWS: Final = 100  # and as how well measured
UNKNOWN_TOLERANCE: Final = 1e-4  # likewise for the float32 variant; Keras and ONNX Runtime differ by some 1e-6


@dataclass(frozen=True, slots=True)
class Golden:
    """Pictures with the answers that the Keras model gave for them.

    Args:
        encoded: The pictures' files, one `bytes` each.
        probabilities: `float32[n, classes]`.
        tolerance: How far any probability of the float32 variant may lie from these.
    """

    encoded: tuple[bytes, ...]
    probabilities: NDArray[np.float32]
    tolerance: float


def read_golden(bundle: Bundle) -> Golden | None:
    """Reads the pictures that the bundle brings to be tried with.

    Returns:
        The golden set, or None where the bundle has none or takes no pictures.

    Raises:
        BundleError: The file cannot be read, or its arrays do not fit each other or the labels.
    """
    if bundle.manifest is None or not bundle.manifest.golden.file or bundle.image is None:
        return None
    path = bundle.folder / bundle.manifest.golden.file
    try:
        with np.load(path, allow_pickle=False) as arrays:
            encoded, offsets = arrays["encoded"], arrays["offsets"]
            probabilities = np.asarray(arrays["probabilities"], dtype=np.float32)
            classes_then = arrays["classes"].tolist() if "classes" in arrays else list(bundle.labels)
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"{path} cannot be read: {error}; export the bundle again") from error
    if not _divides(encoded, offsets):
        raise BundleError(f"expected offsets that divide the encoded pictures in {path}; export the bundle again")
    count, classes = len(offsets) - 1, len(bundle.labels)
    if probabilities.ndim != 2 or len(probabilities) != count or classes not in (0, probabilities.shape[1]):  # noqa: PLR2004
        raise BundleError(
            f"expected probabilities of shape [{count}, {classes or 'classes'}] in {path}, received"
            f" {list(probabilities.shape)}; export the bundle again"
        )
    if classes_then != list(bundle.labels):
        raise BundleError(
            f"expected the labels in the order of {path} ({', '.join(classes_then)}), the manifest has"
            f" {', '.join(bundle.labels)}; export the bundle again"
        )
    data = encoded.tobytes()
    files = tuple(data[start:end] for start, end in itertools.pairwise(offsets.tolist()))
    return Golden(files, probabilities, bundle.manifest.golden.tolerance or UNKNOWN_TOLERANCE)


def decode_golden(bundle: Bundle, golden: Golden) -> NDArray[np.uint8]:
    """Decodes the golden pictures as a request's would be. Blocks.

    Returns:
        `uint8[n, height, width, channels]`.

    Raises:
        BundleError: A picture cannot be decoded.
    """
    assert bundle.image is not None
    try:
        return np.stack([images.decode(picture, bundle.image) for picture in golden.encoded])
    except UnsupportedImage as error:
        raise BundleError(f"a golden picture of {bundle.folder} cannot be decoded: {error}") from error


async def replay(engine: Engine, bundle: Bundle, golden: Golden, rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Runs the golden rows through a loaded graph, in batches as large as it takes.

    Args:
        engine: The loaded variant.
        bundle: Whose golden set it is.
        golden: The known answers.
        rows: Of `decode_golden`.

    Returns:
        What the graph answers, of the shape of `golden.probabilities`.

    Raises:
        BundleError: It answers with another shape.
    """
    output = _output(engine, bundle)
    step = max(1, engine.max_batch_rows)
    answers = [
        np.array((await engine.run({bundle.image_input: rows[start : start + step]}))[output], dtype=np.float32)
        for start in range(0, len(rows), step)
    ]
    received = np.concatenate(answers)
    if received.shape != golden.probabilities.shape:
        raise BundleError(
            f"expected answers of shape {list(golden.probabilities.shape)} for the golden pictures of {bundle.folder},"
            f" received {list(received.shape)}; export the bundle again"
        )
    return received


def check_answers(bundle: Bundle, variant: VariantFile, golden: Golden, received: NDArray[np.float32]) -> None:
    """Compares a variant's answers with the known ones.

    The float32 variant has to give the same probabilities to within the manifest's tolerance. Any other one is an
    approximation whose agreement with the Keras model export has measured, so it has to choose the same class as often
    as that, less what chance explains in so small a sample (see `fewest_agreements`).

    Raises:
        BundleError: They lie further apart than that, or are no numbers.
    """
    where = f"variant '{variant.name}' of {bundle.folder}"
    if not np.isfinite(received).all():
        raise BundleError(
            f"expected finite probabilities for the golden pictures from {where}, received NaN or infinity"
        )
    if variant.name == REFERENCE_VARIANT:
        difference = float(np.abs(received - golden.probabilities).max())
        if difference > golden.tolerance:
            raise BundleError(
                f"expected the golden probabilities to within {golden.tolerance:g} from {where}, received a difference"
                f" of {difference:.3g}; the graph is not what was verified, or this runtime computes otherwise"
            )
        return
    agreed = int((received.argmax(axis=1) == golden.probabilities.argmax(axis=1)).sum())
    needed = fewest_agreements(
        len(received), variant.agreement or UNKNOWN_AGREEMENT, variant.measured_rows or UNKNOWN_ROWS
    )
    if agreed < needed:
        raise BundleError(
            f"expected the golden class for at least {needed} of {len(received)} pictures from {where} (measured"
            f" agreement {variant.agreement:.1%}), received {agreed}; the graph is not what was verified, or this"
            " machine computes it otherwise"
        )


def fewest_agreements(pictures: int, agreement: float, measured_rows: int) -> int:
    """How many golden pictures must get the same class for a measured agreement to be believed.

    An exact one-sided binomial test: the largest number of disagreements that is not less likely than `SIGNIFICANCE`.
    A handful of pictures can refute little, and is asked for little. The measurement is itself a sample, so an
    agreement of 100 % of so many rows is taken for (rows + 1) / (rows + 2), after Laplace's rule of succession.

    Args:
        pictures: In the golden set.
        agreement: Share of rows with the Keras model's class that export measured, 0..1.
        measured_rows: Rows that it was measured over.

    Returns:
        0..`pictures`.
    """
    right = (min(agreement, 1.0) * measured_rows + 1) / (measured_rows + 2)
    below = 0.0  # P(fewer than `disagreements`)
    for disagreements in range(pictures + 1):
        if 1.0 - below < SIGNIFICANCE:
            return pictures - (disagreements - 1)
        below += math.comb(pictures, disagreements) * (1 - right) ** disagreements * right ** (pictures - disagreements)
    return 0


def _output(engine: Engine, bundle: Bundle) -> str:
    # The manifest's first output is the probabilities, whatever else the graph gives and in whatever order.
    named = bundle.manifest.outputs[0].name if bundle.manifest and bundle.manifest.outputs else ""
    names = [output.name for output in engine.outputs]
    return named if named in names else names[0]


def _divides(encoded: NDArray[np.uint8], offsets: NDArray[np.int64]) -> bool:
    return (
        encoded.dtype == np.uint8
        and offsets.ndim == 1
        and len(offsets) > 1
        and offsets[0] == 0
        and offsets[-1] == encoded.size
        and bool(np.all(np.diff(offsets) > 0))
    )

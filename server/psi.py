"""The population stability index, without NumPy: a supervisor computes it of all workers' rows, and holds no model.

PSI = Σ (p − q) · ln(p / q) over the bins' shares; `server.drift` tells what is compared, and how it is to be read.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Final

LEAST_ROWS_PER_BIN: Final = 20
ROWS_FAMILY: Final = "shoal_drift_rows"
REFERENCE_FAMILY: Final = "shoal_drift_reference_rows"
PSI_FAMILY: Final = "shoal_drift_psi"

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


def psi(reference: Iterable[float], live: Iterable[float]) -> float:
    """The population stability index of two histograms over the same bins.

    Half a row is added to each bin, so that an empty one has a logarithm (Jeffreys' prior).

    Args:
        reference: Rows in each bin.
        live: The same of what is compared with it.
    """
    q, p = _shares(reference), _shares(live)
    return sum((after - before) * math.log(after / before) for before, after in zip(q, p, strict=True))


def is_enough(live: Iterable[float]) -> bool:
    """Whether a window has rows enough for its index to mean something.

    Args:
        live: Rows in each bin.
    """
    counts = list(live)
    return sum(counts) >= LEAST_ROWS_PER_BIN * len(counts)


def restate(families: dict[str, Samples]) -> None:
    """Computes the indices of merged pages anew, from the rows of all workers together.

    Args:
        families: Name → sample and labels → value; changed in place.
    """
    if PSI_FAMILY not in families:
        return
    references: dict[Labels, list[float]] = {}
    lives: dict[Labels, list[float]] = {}
    rows: Mapping[tuple[str, Labels], float] = families.get(ROWS_FAMILY, {})
    for (_, labels), wanted in families.get(REFERENCE_FAMILY, {}).items():
        references.setdefault(labels[:3], []).append(wanted)
        lives.setdefault(labels[:3], []).append(rows.get((ROWS_FAMILY, labels), 0.0))
    families[PSI_FAMILY] = {
        (PSI_FAMILY, labels): psi(references[labels], live) for labels, live in lives.items() if is_enough(live)
    }


def _shares(counts: Iterable[float]) -> list[float]:
    padded = [count + 0.5 for count in counts]
    total = sum(padded)
    return [count / total for count in padded]

"""Do the calibration rows look like the hold-out rows? int8 ranges that were found on other pictures fit no others.

The population stability index of the pixels' histograms, PSI = Σ (p − q) · ln(p / q), is the usual measure of such a
shift (Siddiqi, Credit Risk Scorecards, 2006: below 0.1 little, above 0.25 much). The channel that drifts most counts.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

BINS: Final = 16
_LEAST: Final = 1e-4  # share of an empty bin: a logarithm needs one


@dataclass(frozen=True, slots=True)
class Drift:
    """Calibration rows against hold-out rows.

    Args:
        psi: Population stability index of the channel that drifts most.
        mean_difference: Largest difference of a channel's mean, in pixel values 0..255.
        deviation_ratio: Of the channels' standard deviations, calibration over hold-out, the one farthest from 1.
    """

    psi: float
    mean_difference: float
    deviation_ratio: float


def measure_drift(calibration: NDArray[np.uint8], holdout: NDArray[np.uint8]) -> Drift:
    """Compares the pixels of two sets of rows, channel by channel.

    Args:
        calibration: `uint8[n, h, w, c]`.
        holdout: `uint8[m, h, w, c]`.
    """
    ours, theirs = _channel_counts(calibration), _channel_counts(holdout)
    (mean, deviation), (mean_there, deviation_there) = _moments(ours), _moments(theirs)
    ratios = (deviation + 1e-9) / (deviation_there + 1e-9)
    return Drift(
        psi=float(max(_psi(one, other) for one, other in zip(ours, theirs, strict=True))),
        mean_difference=float(np.abs(mean - mean_there).max()),
        deviation_ratio=float(ratios[np.abs(np.log(ratios)).argmax()]),
    )


def _channel_counts(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    channels = range(rows.shape[-1])
    return np.stack([np.bincount(rows[..., channel].ravel(), minlength=256) for channel in channels])


def _moments(counts: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values, shares = np.arange(256.0), counts / counts.sum(1, keepdims=True)
    mean = shares @ values
    return mean, np.sqrt(np.maximum(shares @ values**2 - mean**2, 0.0))


def _psi(one: NDArray[np.int64], other: NDArray[np.int64]) -> float:
    p, q = (np.maximum(counts.reshape(BINS, -1).sum(1) / counts.sum(), _LEAST) for counts in (one, other))
    return float(((p - q) * np.log(p / q)).sum())

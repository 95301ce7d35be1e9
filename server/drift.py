"""Do live pictures, and the answers to them, look like those that the bundle was verified with?

    manifest's reference ──bins──┐
    sample of answers ──bins──▶ window of the latest rows ──▶ population stability index of each feature

The index is PSI = Σ (p − q) · ln(p / q) over the bins' shares (Siddiqi, Credit Risk Scorecards, 2006: below 0.1 little
change, above 0.25 much). Half a row is added to each bin, so that an empty one has a logarithm (Jeffreys' prior). With
nothing changed a window of n rows still gives about (bins − 1) · (1/n + 1/m) for a reference of m (Yurdakul,
Statistical Properties of Population Stability Index, 2018), so nothing is told of fewer than `psi.LEAST_ROWS_PER_BIN`
rows for each bin.

`watch` belongs to the observer's thread, `collect` to the event loop: what one replaces, the other reads.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from prometheus_client.core import GaugeMetricFamily, Metric

from protos.bundle_pb2 import Histogram, Manifest
from server.looks import looks_of
from server.predictions.answers import Answered, probabilities_in
from server.psi import PSI_FAMILY, REFERENCE_FAMILY, ROWS_FAMILY, is_enough, psi
from server.versions import LoadedModel

FEATURES: Final = ("classes", "confidence", "brightness", "contrast")
# With more classes than this, several share a bin (class modulo bins): the noise of the index grows with the bins.
MAX_CLASS_BINS: Final = 50
# Rows of one request whose pixels are looked at.
PIXEL_ROWS: Final = 8
_LABELS: Final = ("model", "version", "feature", "bin")
_ROWS_NDIM: Final = 4


class Window:
    """Counts by bin of the latest values.

    Args:
        bins: How many bins.
        size: How many values.
    """

    def __init__(self, bins: int, size: int) -> None:
        self._ring = np.zeros(size, np.uint16)
        self._used = self._next = 0
        self.counts: NDArray[np.int64] = np.zeros(bins, np.int64)

    def add(self, values: NDArray[np.intp]) -> None:
        """Takes bin numbers in; as many of the oldest go as there are too many."""
        size, bins = len(self._ring), len(self.counts)
        values = values[-size:]
        places = (self._next + np.arange(len(values))) % size
        gone = self._ring[places[max(0, size - self._used) :]]
        self._ring[places] = values
        # Replaced as a whole, because another thread may be reading.
        self.counts = self.counts + np.bincount(values, minlength=bins) - np.bincount(gone, minlength=bins)
        self._used = min(size, self._used + len(values))
        self._next = (self._next + len(values)) % size


@dataclass(frozen=True, slots=True)
class Reference:
    """What a bundle says of its hold-out rows.

    Args:
        edges: Feature → inner edges of its bins; nothing for classes.
        counts: Feature → rows in each bin.
        bins: Feature → names of its bins.
    """

    edges: Mapping[str, NDArray[np.float64]]
    counts: Mapping[str, NDArray[np.int64]]
    bins: Mapping[str, tuple[str, ...]]


def read_reference(manifest: Manifest | None) -> Reference | None:
    """The reference that a manifest brings, or None: a plain model has none, nor have bundles that were made before.

    Args:
        manifest: Of the bundle.
    """
    if manifest is None or not manifest.reference.classes:
        return None
    given = manifest.reference
    classes = np.array(given.classes, np.int64)
    folded = fold_classes(np.arange(len(classes)))
    counts = {"classes": np.bincount(folded, weights=classes).astype(np.int64)}
    labels = list(manifest.labels)
    bins = {"classes": tuple(_spell_class(number, labels, len(classes)) for number in range(len(counts["classes"])))}
    edges: dict[str, NDArray[np.float64]] = {}
    histograms = {"confidence": given.confidence, "brightness": given.brightness, "contrast": given.contrast}
    for feature, histogram in histograms.items():
        if len(histogram.counts) == len(histogram.edges) + 1:
            edges[feature] = np.array(histogram.edges)
            counts[feature] = np.array(histogram.counts, np.int64)
            bins[feature] = tuple(_spell_bins(histogram))
    return Reference(edges, counts, bins)


def fold_classes(classes: NDArray[np.intp]) -> NDArray[np.intp]:
    """The bin of each class; see `MAX_CLASS_BINS`."""
    return classes % MAX_CLASS_BINS


class DriftMonitor:
    """Compares samples of answers with the references of the versions that gave them.

    Args:
        window_rows: How many of the latest rows are compared.
        loaded: Gives the loaded versions.
    """

    def __init__(self, window_rows: int, loaded: Callable[[], Iterable[LoadedModel]]) -> None:
        self._window_rows = window_rows
        self._loaded = loaded
        self._watched: WeakKeyDictionary[LoadedModel, _Watched | None] = WeakKeyDictionary()

    def watch(self, answers: Sequence[Answered]) -> None:
        """Takes a sample in; `inputs` has the pixels of some of them."""
        groups: dict[LoadedModel, list[Answered]] = {}
        for answered in answers:
            groups.setdefault(answered.model, []).append(answered)
        for model, group in groups.items():
            watched = self._watched_of(model)
            if watched is not None:
                watched.take(model, group)

    def collect(self) -> Iterator[Metric]:
        """What a scrape shows: windows, references, and the index of each feature that has rows enough."""
        rows = GaugeMetricFamily(ROWS_FAMILY, "Latest rows by feature and bin, of a sample.", labels=_LABELS)
        reference = GaugeMetricFamily(REFERENCE_FAMILY, "Hold-out rows by feature and bin.", labels=_LABELS)
        index = GaugeMetricFamily(
            PSI_FAMILY, "Population stability index of the latest rows against the hold-out.", labels=_LABELS[:3]
        )
        for model in self._loaded():
            watched = self._watched.get(model)
            for feature, window in watched.windows.items() if watched is not None else ():
                assert watched is not None
                labels, expected = [model.name, str(model.version), feature], watched.reference.counts[feature]
                live = window.counts
                for name, count, wanted in zip(watched.reference.bins[feature], live, expected, strict=True):
                    rows.add_metric([*labels, name], float(count))
                    reference.add_metric([*labels, name], float(wanted))
                if is_enough(live):
                    index.add_metric(labels, psi(expected, live))
        yield from (rows, reference, index)

    def _watched_of(self, model: LoadedModel) -> "_Watched | None":
        if model not in self._watched:
            reference = read_reference(model.bundle.manifest)
            self._watched[model] = _Watched(reference, self._window_rows) if reference is not None else None
        return self._watched[model]


class _Watched:
    """The windows of one version."""

    def __init__(self, reference: Reference, size: int) -> None:
        self.reference = reference
        self.windows = {feature: Window(len(counts), size) for feature, counts in reference.counts.items()}

    def take(self, model: LoadedModel, group: Sequence[Answered]) -> None:
        """Counts answers of one version, all at once: the fixed cost of an array is far above that of a row."""
        classes = len(self.reference.bins["classes"])
        first = model.outputs[0].name
        answers = [
            probabilities
            for one in group
            if (probabilities := probabilities_in(one.outputs.get(first), one.rows)) is not None
            and min(probabilities.shape[1], MAX_CLASS_BINS) == classes
        ]
        if answers:
            probabilities = np.concatenate(answers)
            self.windows["classes"].add(fold_classes(probabilities.argmax(axis=1)))
            self._add("confidence", probabilities.max(axis=1).astype(np.float64))
        pixels: dict[tuple[int, ...], list[NDArray[np.uint8]]] = {}
        for one in group:
            rows = one.inputs.get(model.image_input)
            if rows is not None and rows.dtype == np.uint8 and rows.ndim == _ROWS_NDIM:
                pixels.setdefault(rows.shape[1:], []).append(rows[:PIXEL_ROWS])
        for alike in pixels.values():
            brightness, contrast = looks_of(np.concatenate(alike))
            self._add("brightness", brightness)
            self._add("contrast", contrast)

    def _add(self, feature: str, values: NDArray[np.float64]) -> None:
        if feature in self.windows:
            self.windows[feature].add(np.searchsorted(self.reference.edges[feature], values, side="right"))


def _spell_class(number: int, labels: Sequence[str], classes: int) -> str:
    if classes > MAX_CLASS_BINS:
        return f"{number} modulo {MAX_CLASS_BINS}"
    return labels[number] if number < len(labels) else str(number)


def _spell_bins(histogram: Histogram) -> Iterator[str]:
    edges = [f"{edge:.4g}" for edge in histogram.edges]
    for low, high in zip(["", *edges], [*edges, ""], strict=True):
        yield f"{low}..{high}"

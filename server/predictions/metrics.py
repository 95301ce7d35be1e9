"""What the prediction log and feedback say at a scrape.

Counters and the queue of several workers add up. Live accuracy is read from the database that they share, so all of
them say the same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from server.feedback import FeedbackDesk
from server.predictions.answers import expected_accuracy
from server.predictions.log import PredictionLog
from server.predictions.observer import Observer
from server.predictions.storage import Accuracy
from server.versions import LoadedModel

_NAMES: Final = ("model", "version")


class Accuracies(Protocol):
    """What knows how often versions were right; `server.predictions.store.PredictionStore` is one."""

    @property
    def accuracies(self) -> Mapping[tuple[str, int], Accuracy]:
        """Model and version → of its latest feedback."""


@dataclass(frozen=True, slots=True)
class LogMetrics:
    """Families of one process's prediction log; call it at a scrape.

    Args:
        observer: What waits in it is in the queue too.
        log: Counts what was written and lost.
        store: Has what feedback says.
        desk: Counts feedback.
    """

    observer: Observer
    log: PredictionLog
    store: Accuracies
    desk: FeedbackDesk

    def __call__(self) -> Iterator[Metric]:
        """Every family."""
        numbers = self.log.statistics()
        yield CounterMetricFamily(
            "shoal_prediction_log_written", "Predictions written to the database.", numbers.written
        )
        yield CounterMetricFamily("shoal_prediction_log_dropped", "Predictions that were not logged.", numbers.dropped)
        yield GaugeMetricFamily(
            "shoal_prediction_log_queue",
            "Predictions that wait for the database.",
            numbers.pending + self.observer.waiting_rows,
        )
        counts = CounterMetricFamily(
            "shoal_feedback", "Feedback on predictions, by whether they were right.", labels=[*_NAMES, "correct"]
        )
        for (model, version, correct), count in sorted(self.desk.counts.items()):
            counts.add_metric([model, str(version), str(correct).lower()], count)
        yield counts
        yield from self._accuracies()

    def _accuracies(self) -> Iterator[Metric]:
        live = GaugeMetricFamily(
            "shoal_live_accuracy", "Share of right answers among a version's latest feedback.", labels=_NAMES
        )
        behind = GaugeMetricFamily("shoal_live_accuracy_rows", "How many feedbacks that is of.", labels=_NAMES)
        for (model, version), accuracy in sorted(self.store.accuracies.items()):
            live.add_metric([model, str(version)], accuracy.correct / accuracy.rows)
            behind.add_metric([model, str(version)], accuracy.rows)
        yield from (live, behind)


def expected_accuracies(loaded: Callable[[], Iterable[LoadedModel]]) -> Iterator[Metric]:
    """What loaded versions reached on the hold-out rows when they were exported.

    Args:
        loaded: Gives the loaded versions.
    """
    family = GaugeMetricFamily(
        "shoal_expected_accuracy", "Accuracy on the hold-out rows, by export.", labels=[*_NAMES, "variant"]
    )
    for model in loaded():
        accuracy = expected_accuracy(model)
        if accuracy is not None:
            family.add_metric([model.name, str(model.version), model.variant], accuracy)
    yield family

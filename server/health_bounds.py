"""Whether a version that has just taken over does as well as the one before it. Pure; the time comes from the caller.

    lease ends ──▶ Health counts it          every tick: breach(bounds, new, old) ──▶ None, or why it has to go back

Errors are the requests that the model failed (`InferenceFailed`); what a client got wrong or a full queue refused says
nothing about a version. Latency is what the version's batches cost against what the same batches would have cost with
the version before, both as measured while serving: unlike a request's own time that does not grow with the load.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HealthBounds:
    """What a new version must keep to in its first minutes, or the one before it comes back.

    Args:
        window_s: How long it is on probation, and the version before it stays loaded, in seconds; 0 turns it off.
        min_requests: Fewer requests than this prove nothing.
        max_error_rate: Share of requests that may fail beyond the share that failed before, 0..1.
        max_latency_ratio: How many times as long as before its batches may take.
        latency_slack_s: Batches that take no more than this longer are never too slow, in seconds. The costs of tiny
            graphs, some microseconds, differ by more than any sensible ratio from one minute to the next.
    """

    window_s: float = 120.0
    min_requests: int = 20
    max_error_rate: float = 0.05
    max_latency_ratio: float = 4.0
    latency_slack_s: float = 0.005


@dataclass(slots=True)
class Health:
    """Requests that one loaded version has finished.

    Args:
        requests: Answered or failed by the model.
        errors: Failed by it.
    """

    requests: int = 0
    errors: int = 0

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed, 0..1."""
        return self.errors / self.requests if self.requests else 0.0


def breach(bounds: HealthBounds, new: Health, old: Health, new_batch_s: float, old_batch_s: float) -> str | None:
    """Judges a version on probation.

    Args:
        bounds: What it must keep to.
        new: Its requests so far.
        old: Those of the version before it.
        new_batch_s: What its batches have cost on average, in seconds.
        old_batch_s: What the same batches would have cost with the version before it.

    Returns:
        Why it has to go back, or None while it keeps to the bounds or has had too few requests to tell.
    """
    if new.requests < bounds.min_requests:
        return None
    allowed = bounds.max_error_rate + old.error_rate
    if new.error_rate > allowed:
        return f"{new.errors} of its first {new.requests} requests failed, at most {allowed:.1%} may"
    if new_batch_s > max(bounds.max_latency_ratio * old_batch_s, old_batch_s + bounds.latency_slack_s):
        return (
            f"its batches took {1000 * new_batch_s:.1f} ms instead of the previous version's"
            f" {1000 * old_batch_s:.1f} ms, at most {bounds.max_latency_ratio:g} times as long is allowed"
        )
    return None


def mean_batch_s(batches: Mapping[int, int], cost_s: Callable[[int], float]) -> float:
    """What batches cost on average, in seconds.

    Args:
        batches: Rows in a batch → how many such batches ran.
        cost_s: Seconds that a batch of so many rows takes.

    Returns:
        The mean; 0 where nothing has run.
    """
    count = sum(batches.values())
    return sum(ran * cost_s(rows) for rows, ran in batches.items()) / count if count else 0.0

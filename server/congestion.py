"""Whether this process itself, not the engine behind it, is what requests would wait for.

Reading, parsing and answering cost a core more than a small model does. When requests come faster than that, they wait
in socket buffers, where no queue of ours counts them. Little's law does: so many under way ÷ so many finished in a
second is how long each takes, whatever it waits for.

A burst is not an overload: a hundred requests at once are gone in a moment, and refusing them helps nobody. So there
are two limits, after CoDel (Nichols and Jacobson 2012): many may be under way for a moment, but when even the shortest
queue of each of the last windows took long to get through, it is a standing one, and only as many as keep the core busy
may be under way.
"""

from typing import Final

# Requests may always be under way in such number, so that a slow start cannot starve itself.
FEWEST: Final = 64
# Until a rate is known. A batch of the largest size and the next one fit several times.
UNMEASURED: Final = 512
WINDOW_S: Final = 0.1
# A queue stands, or stands no longer, after as many windows. A version that comes up, a batch of large pictures or a
# neighbour on the core make one for a moment: refusing then cost 30 reloads 900 of 100,000 requests that were not late.
STANDS_AFTER: Final = 5
# A rate is learnt quickly and forgotten slowly: a limit that follows every dip down would hold the rate down itself.
LEARN: Final = 0.5
# At half load the only windows that never ran out of work are slow ones, as while a version comes up; forgotten at 0.05
# a window, the limit sank to what came instead of what can be done.
FORGET: Final = 0.02
# Two windows suffice where even the shortest queue took longer than a burst may: it would be refused by now, had the
# rate been known. Waiting for all five cost 0.6 s at a quarter of the capacity, because admission refuses meanwhile.
STANDS_AFTER_LONG: Final = 2
# Share of the budget that requests under way may take to finish. A larger one lets admission refuse first, which is
# dearer; a smaller one (0.3) refused several times as many requests while versions came up at half load.
BURST: Final = 0.4
# A queue stands once getting through it took this share of the budget in each of the windows, ...
BEGINS: Final = 0.25
# ... is then held at this share, which is two batches of 32 and more, so the core stays busy: at twice the capacity the
# p99 of what was accepted fell from 97 to 32 ms against 0.25 (`python -m benchmarks overload`) ...
STANDING: Final = 0.1
# ... and stands no longer when it was shorter than this for as long.
ENDS: Final = 0.05


class Congestion:
    """Counts requests under way, and knows how many may be.

    Args:
        budget_s: What a request that names no deadline has.
    """

    __slots__ = (
        "_began_s",
        "_budget_s",
        "_finished",
        "_lowest",
        "_rate_per_s",
        "_stands",
        "_windows",
        "limit",
        "under_way",
    )

    def __init__(self, budget_s: float) -> None:
        self._budget_s = budget_s
        self._stands = False
        self._windows = 0  # that in a row say it stands, or stands no longer
        self._rate_per_s = 0.0
        self._began_s = 0.0
        self._finished = 0
        self._lowest = 0
        self.under_way = 0
        self.limit = UNMEASURED

    @property
    def full(self) -> bool:
        """Whether one more would come too late."""
        return self.under_way >= self.limit

    @property
    def retry_after_s(self) -> float:
        """When there is likely to be room again."""
        return self._budget_s

    def enter(self) -> None:
        """Counts a request that has arrived."""
        self.under_way += 1

    def leave(self, now_s: float, *, answered: bool) -> None:
        """Counts one that is over.

        Args:
            now_s: The present, on a monotonic clock.
            answered: Whether it was answered; refusals are quick, and say nothing of how long answers take.
        """
        self.under_way -= 1
        self._finished += answered
        self._lowest = min(self._lowest, self.under_way)
        elapsed_s = now_s - self._began_s
        if elapsed_s < WINDOW_S:
            return
        # Only a window that never ran out of work tells how fast work can be done.
        if self._lowest >= FEWEST // 2 and elapsed_s < 10 * WINDOW_S:
            rate_per_s = self._finished / elapsed_s
            weight = LEARN if rate_per_s > self._rate_per_s else FORGET
            self._rate_per_s += (rate_per_s - self._rate_per_s) * (weight if self._rate_per_s else 1.0)
        if self._rate_per_s:
            self._choose_limit(elapsed_s)
        self._began_s, self._finished, self._lowest = now_s, 0, self.under_way

    def _choose_limit(self, elapsed_s: float) -> None:
        share = self._took_s(elapsed_s) / self._budget_s
        changes = share < ENDS if self._stands else share >= BEGINS
        self._windows = self._windows + 1 if changes else 0
        enough = STANDS_AFTER_LONG if share >= BURST and not self._stands else STANDS_AFTER
        if self._windows >= enough:
            self._stands, self._windows = not self._stands, 0
        allowed = STANDING if self._stands else BURST
        self.limit = max(FEWEST, int(self._rate_per_s * self._budget_s * allowed))

    def _took_s(self, elapsed_s: float) -> float:
        """How long the shortest queue of this window took to get through, at the rate of this window.

        The rate that was learnt is too high for this when the machine has become slower: a queue that the batcher keeps
        short, by refusing what has been parsed already, would never seem to stand.
        """
        if self._lowest < FEWEST // 2:
            return 0.0
        return self._lowest * elapsed_s / max(self._finished, 1)

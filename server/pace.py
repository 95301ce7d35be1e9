"""How fast batches really follow one another, and so how long a request would wait.

    engine.cost_s(rows) ──────────────┐
    end of a batch → end of the next ─┴─▶ limit_rows (how large a batch may be), wait_s, run_s

The engine's own cost is not all: between two batches the event loop settles tickets, parses requests and writes
answers, on the same cores. What a batch took from the end of the one before it, less what the engine was expected to
take, is that share; it is a mean over the same batches.
"""

from server.cost_model import Smoothed
from server.executor import Engine


class Pace:
    """The clockwork of one batcher.

    Args:
        engine: Its engine.
        cap_rows: Rows in a batch at most.
        max_batch_s: Batches stay so small that one is expected to take no longer than this.
        one_by_one: Requests never share a batch, so each row that waits is taken for a batch of its own.
    """

    def __init__(self, engine: Engine, cap_rows: int, max_batch_s: float, *, one_by_one: bool) -> None:
        self._engine = engine
        self._cap_rows = cap_rows
        self._max_batch_s = max_batch_s
        self._one_by_one = one_by_one
        self._cycle = Smoothed()
        self._engine_share = Smoothed()
        self._running_rows = 0
        self.started_s = 0.0  # when the batch that runs, or the last one, began
        self.limit_rows = self._affordable_rows()

    def begin(self, rows: int, now_s: float) -> None:
        """Notes that a batch starts."""
        self._running_rows, self.started_s = rows, now_s

    def end(self, now_s: float, previous_end_s: float | None) -> None:
        """Notes that it is over.

        Args:
            now_s: The present.
            previous_end_s: When the batch before it ended; None if the engine stood idle in between.
        """
        if previous_end_s is not None:
            self._cycle.add(now_s - previous_end_s)
            self._engine_share.add(self._engine.cost_s(self._running_rows))
        self._running_rows = 0
        self.limit_rows = self._affordable_rows()

    def wait_s(self, rows: int, now_s: float) -> float:
        """Seconds until the last of so many waiting rows is in a batch that starts.

        A batch that is late is expected to take half as long again as it is late, so an engine that hangs refuses more
        and more instead of promising what it does not keep. Half, because admission doubles it: a core that something
        else has taken for 60 ms, as training beside a server does, is no reason to refuse anyone.
        """
        shared_rows = 1 if self._one_by_one else self.limit_rows
        batches = (rows - 1) // shared_rows
        gap_s = max(0.0, self._cycle.value - self._engine_share.value)
        wait_s = batches * (self._engine.cost_s(shared_rows) + gap_s)
        if not self._running_rows:
            return wait_s
        left_s = self.started_s + self._engine.cost_s(self._running_rows) - now_s
        return wait_s + (left_s if left_s > 0 else -left_s / 2)

    def run_s(self, rows: int | None) -> float:
        """Seconds that a batch of so many rows takes, as far as one may hold them; None for a full one."""
        return self._engine.cost_s(self.limit_rows if rows is None else min(rows, self.limit_rows))

    def _affordable_rows(self) -> int:
        rows = self._cap_rows
        while rows > 1 and self._engine.cost_s(rows) > self._max_batch_s:
            rows //= 2
        return rows

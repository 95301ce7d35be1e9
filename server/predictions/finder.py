"""Finds predictions that feedback is for: in the database, and in the spool, where they wait while every core is busy.

ids ──database──▶ known
    └─spool─────▶ written to the database here and now; the writer, when it gets there, finds them present
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from server.predictions.backlog import find_waiting
from server.predictions.records import inputs_of, spell_rows
from server.predictions.storage import Batch, Known
from server.predictions.store import Key, PredictionStore


class Finder:
    """What a feedback desk looks in.

    Args:
        store: The database.
        folder: The spool's.
    """

    def __init__(self, store: PredictionStore, folder: Path) -> None:
        self._store = store
        self._folder = folder

    def find(self, keys: Sequence[Key]) -> dict[Key, Known]:
        """What was answered to requests, of what the database has; see `PredictionStore.find`."""
        return self._store.find(keys)

    def find_waiting(self, keys: Sequence[Key]) -> dict[Key, Known]:
        """The same of what waits for the database; it is there behind this.

        Args:
            keys: Request id and position of a picture in it.

        Raises:
            StorageAway: The database cannot be reached now.
            StorageRefused: It will not have one of them.
        """
        wanted = set(keys)
        for origin, block, told in find_waiting(self._folder, {request_id for request_id, _ in keys}):
            rows = spell_rows(block, told, self._store.number_of(origin))
            chosen = [row for row in rows if (row[2], row[3]) in wanted]
            kept = inputs_of(block)
            inputs = {row[9]: kept[row[9]] for row in chosen if row[9] in kept}
            self._store.write(Batch(chosen, inputs, {(told.model, told.version): told.kept}))
        return self._store.find(keys)

    def save_feedback(self, given: Mapping[Key, tuple[Known, str]]) -> None:
        """Writes feedback; see `PredictionStore.save_feedback`."""
        self._store.save_feedback(given)

    def refresh(self) -> None:
        """Reads again what feedback says of each version; see `PredictionStore.refresh`."""
        self._store.refresh()

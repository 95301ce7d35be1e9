"""What callers say was right, against what was answered: live accuracy.

{"request_id": …, "label": …} ──in the log?──▶ label known? ──▶ feedback table ──▶ accuracy of the version
                               └ in the spool? then it is written now ─ wait a little: it may be about to get there
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, TypeVar

import structlog

from server.errors import InvalidInput, Unavailable
from server.predictions.storage import Known, StorageAway, StorageRefused

# A worker fills the spool four times in a second, so what is in neither after this long was not logged.
WAIT_S: Final = 1.5
POLL_S: Final = 0.15
_LABELS_SHOWN: Final = 10

Key = tuple[str, int]
T = TypeVar("T")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Feedback:
    """What one caller says of one picture.

    Args:
        request_id: Of the request, as its answer had it.
        label: The right class: its name, or its number.
        position: Which picture of the request, from 0.
    """

    request_id: str
    label: str | int
    position: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of feedback.

    Args:
        accepted: How many were written.
        correct: Of these, how many of the answers were right.
        unknown: Those whose prediction is not in the log.
    """

    accepted: int
    correct: int
    unknown: tuple[Feedback, ...]


class Shelf(Protocol):
    """Where predictions are found; `server.predictions.finder.Finder` is one."""

    def find(self, keys: Sequence[Key]) -> dict[Key, Known]:
        """What was answered to requests, of what the database has."""

    def find_waiting(self, keys: Sequence[Key]) -> dict[Key, Known]:
        """The same of what waits for the database; it is there behind this. Reads all that waits."""

    def save_feedback(self, given: Mapping[Key, tuple[Known, str]]) -> None:
        """Writes feedback."""

    def refresh(self) -> None:
        """Reads again what feedback says of each version."""


class FeedbackDesk:
    """Takes feedback in.

    Args:
        shelf: Where predictions are found. Its methods block, so they run in a thread of this object's own.
        wait_s: How long a prediction that is not there is waited for, in seconds.
        clock: Seconds on a monotonic clock.
    """

    def __init__(self, shelf: Shelf, *, wait_s: float = WAIT_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._shelf = shelf
        self._wait_s = wait_s
        self._clock = clock
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="feedback")
        self.counts: Counter[tuple[str, int, bool]] = Counter()

    async def take(self, given: Sequence[Feedback]) -> Taken:
        """Writes feedback on predictions; the last word on a picture replaces those before.

        Args:
            given: Any number.

        Raises:
            InvalidInput: A label is none of the version's; nothing of the call is written then.
            Unavailable: The database does not answer now.
        """
        known = await self._wait_known({(one.request_id, one.position) for one in given})
        found, unknown = {}, []
        for one in given:
            key = (one.request_id, one.position)
            if key in known:
                found[key] = (known[key], _label_of(one, known[key]))
            else:
                unknown.append(one)
        if found:
            await self._call(partial(self._shelf.save_feedback, found))
            await self._call(self._shelf.refresh)
        for prediction, label in found.values():
            self.counts[prediction.model, prediction.version, prediction.label == label] += 1
        correct = sum(prediction.label == label for prediction, label in found.values())
        return Taken(len(found), correct, tuple(unknown))

    def close(self) -> None:
        """Ends the thread once it has done what it is at."""
        self._executor.shutdown(wait=True)

    async def _wait_known(self, keys: set[Key]) -> dict[Key, Known]:
        known: dict[Key, Known] = {}
        give_up_s, is_first = self._clock() + self._wait_s, True
        while True:
            is_last = self._clock() >= give_up_s
            known |= await self._call(partial(self._shelf.find, sorted(keys - known.keys())))
            # What waits is looked through twice: for what has waited for long, and for what came a moment ago.
            if len(known) < len(keys) and (is_first or is_last):
                known |= await self._call(partial(self._shelf.find_waiting, sorted(keys - known.keys())))
            if len(known) == len(keys) or is_last:
                return known
            is_first = False
            await asyncio.sleep(POLL_S)

    async def _call(self, function: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, function)
        except (StorageAway, StorageRefused) as error:
            log.warning("feedback was not taken", reason=str(error))
            raise Unavailable(
                "the prediction log's database does not take feedback now; send it again later"
            ) from error


def _label_of(given: Feedback, known: Known) -> str:
    labels, label = known.labels, given.label
    if isinstance(label, int) and (not labels or 0 <= label < len(labels)):
        return labels[label] if labels else str(label)
    if isinstance(label, str) and (not labels or label in labels):
        return label
    shown = ", ".join(labels[:_LABELS_SHOWN]) + (", ..." if len(labels) > _LABELS_SHOWN else "")
    raise InvalidInput(
        f"expected a label of '{known.model}' version {known.version} ({shown}) or its number, received {label!r:.60}"
        f" for the request {given.request_id}"
    )

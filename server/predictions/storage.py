"""What passes between the prediction log's writer and its database, and the two ways in which a database says no."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

# The values of `records.COLUMNS`, in their order.
Row = tuple[int, int, str, int, str | None, str, str, int, str, str, str, float | None, str, int]


class StorageAway(Exception):
    """The database cannot be written now; the same may do later."""


class StorageRefused(Exception):
    """The database will not take these rows, now or later."""


class Input(NamedTuple):
    """One picture as it came, or one row of tensors.

    Args:
        content: Its bytes.
        form: "encoded" for a picture's file; the type and shape of a row otherwise, such as `uint8[28, 28, 1]`.
    """

    content: bytes
    form: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Rows that were answered and not logged.

    Args:
        began_s: When the first of them was lost, in seconds since the epoch.
        ended_s: When the last was.
        rows: How many.
        reason: Why.
    """

    began_s: float
    ended_s: float
    rows: int
    reason: str

    def with_more(self, rows: int, reason: str, now_s: float) -> "Gap":
        """The same gap, wider.

        Args:
            rows: How many more.
            reason: Why.
            now_s: Seconds since the epoch.
        """
        return Gap(self.began_s, now_s, self.rows + rows, reason)


@dataclass(frozen=True, slots=True)
class Version:
    """What the database keeps of a version.

    Args:
        labels: Its class names.
        variant: The graph in use.
        accuracy: Of that graph on the hold-out rows, 0..1; None where unknown.
    """

    labels: tuple[str, ...]
    variant: str
    accuracy: float | None


@dataclass(slots=True)
class Batch:
    """What is written in one transaction.

    Args:
        rows: Of predictions. One whose id is there already is passed over.
        inputs: Digest → what was sent.
        versions: Model and version → what to keep of it; those that were not written yet.
        gap: What was lost before, or None.
    """

    rows: Sequence[Row] = ()
    inputs: Mapping[str, Input] = field(default_factory=dict)
    versions: Mapping[tuple[str, int], Version] = field(default_factory=dict)
    gap: Gap | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """A prediction that feedback is for.

    Args:
        id: Its number in the table.
        client: Who asked; None where unknown.
        model: What answered.
        version: Of it.
        label: What was answered.
        labels: Every class name of the version; empty where it has none.
    """

    id: int
    client: str | None
    model: str
    version: int
    label: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How often a version was right, of its latest feedback.

    Args:
        rows: How many were looked at.
        correct: How many were right.
    """

    rows: int
    correct: int


class Storage(Protocol):
    """Where rows go; `server.predictions.store.PredictionStore` is one."""

    def number_of(self, origin: str) -> int:
        """The number that a worker's rows begin with, the same each time.

        Raises:
            StorageAway: Try again later.
        """

    def write(self, batch: Batch) -> None:
        """Writes everything of a batch, or nothing.

        Raises:
            StorageAway: Try again later.
            StorageRefused: Never.
        """

    def sweep(self, before_us: int, limit: int) -> int:
        """Deletes what is older, at most so many rows, and returns how many it were.

        Raises:
            StorageAway: Try again later.
        """

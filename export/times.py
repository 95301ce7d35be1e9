"""The time, as bundles and histories write it."""

from datetime import UTC, datetime


def now() -> str:
    """The time in UTC, as RFC 3339."""
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

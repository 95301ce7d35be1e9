"""What a worker tells the writer that it starts."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Orders:
    """What a writer is to do.

    Args:
        url: The database's, with its password.
        folder: The spool's.
        retention_days: How long rows stay; 0 for ever.
        hurry_bytes: When so much waits, the writer waits for nobody.
        log_level: Of its own log.
        log_format: Of its own log.
        cores: What it may run on, which the worker that starts it need not: that one may keep to a core of its own.
    """

    url: str
    folder: str
    retention_days: float
    hurry_bytes: int
    log_level: str
    log_format: str
    cores: tuple[int, ...]

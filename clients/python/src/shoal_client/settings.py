"""What every client is made with besides its address."""

from dataclasses import dataclass, field

from shoal_client.retries import Clock, RetryPolicy


@dataclass(frozen=True, kw_only=True)
class ClientSettings:
    """How a client calls.

    Args:
        timeout_s: Seconds for one call with its repeats, where the call names no other; None sets no limit. The server
            gets it too, and refuses at once what it could not answer by then.
        retry: How refusals are met.
        token: Sent as `Authorization: Bearer ...` where it is not empty.
        clock: Time and chance.
    """

    timeout_s: float | None = 10.0
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    token: str = field(default="", repr=False)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        """Checks the values.

        Raises:
            ValueError: `timeout_s` is not above 0.
        """
        if self.timeout_s is not None and self.timeout_s <= 0:
            raise ValueError(f"expected timeout_s above 0, or None for no limit, received {self.timeout_s}")

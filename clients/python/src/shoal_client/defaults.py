"""What calls take where they are not told otherwise."""

from typing import Final

from shoal_client.errors import InvalidInput

# On two cores that client and server share, each of 5,000 small pictures costs the server 430 µs of CPU over one stream
# of 64, 360 over 8, 290 over 16 and 250 over 32, because more streams let it work in larger bites. Each is a connection
# of its own, so that several server processes get their share.
STREAMS: Final = 32
# The synchronous client has two threads for each, and more than eight cost it what they save the server.
SYNC_STREAMS: Final = 8
STREAM_WINDOW: Final = 256
# Each is a connection of its own.
HTTP_WINDOW: Final = 16


class Unset:
    """The type of `UNSET`."""

    def __repr__(self) -> str:
        return "the client's setting"


UNSET: Final = Unset()


def check_window(window: int) -> None:
    """Checks how many pictures may be in flight.

    Args:
        window: The number.

    Raises:
        InvalidInput: It is less than 1.
    """
    if window < 1:
        raise InvalidInput(f"expected a window of at least 1 picture in flight, received {window}")


def bearer(token: str) -> dict[str, str]:
    """The header that tells who is calling.

    Args:
        token: The token, or "".
    """
    return {"Authorization": f"Bearer {token}"} if token else {}

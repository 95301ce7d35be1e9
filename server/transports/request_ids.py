"""Names for requests: the caller's own where it is sound, one of ours otherwise."""

import functools
import itertools
import re
import secrets
from typing import Final

# What is safe in a header, a log line and a URL alike.
_SOUND: Final = re.compile(r"[A-Za-z0-9._~:/+=@-]{1,128}")
_count = itertools.count(1)


def request_id_of(given: str | None) -> str:
    """The id that a request goes by.

    Args:
        given: What the caller sent, or None.

    Returns:
        `given` where it is 1 to 128 letters, digits or ._~:/+=@-; a new one otherwise.
    """
    if given and _SOUND.fullmatch(given):
        return given
    return f"{_prefix()}-{next(_count):x}"


@functools.cache
def _prefix() -> str:
    """Tells processes and restarts apart; random numbers for each request cost more.

    Drawn with the first request and not at import: workers are forked from a process that has imported this.
    """
    return secrets.token_hex(4)

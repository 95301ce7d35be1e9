"""Which version answers, asked over many connections while something is changed.

16 connections ─▶ GET /model-info, each again and again ─▶ (when, version) … until all are answered by the new one
"""

import asyncio
import json
import re
import time
from collections.abc import Coroutine
from typing import Any, Final

from benchmarks.http_load import Connection, connect
from benchmarks.server_process import Address

WATCHERS: Final = 16  # connections, shared out evenly among the workers
LOOK_EVERY_S: Final = 0.02
GIVE_UP_S: Final = 120.0

Seen = tuple[float, int]  # when an answer came, in seconds since the epoch, and by which version


async def open_watchers(address: Address) -> list[Connection]:
    """Opens the connections to watch over."""
    return [await connect(address.http) for _ in range(WATCHERS)]


async def watch_change(
    watchers: list[Connection], name: str, wanted: int, change: Coroutine[Any, Any, None]
) -> list[Seen]:
    """Changes something, and asks which version answers until that is the wanted one on every connection.

    Args:
        watchers: From `open_watchers`.
        name: Of the model.
        wanted: The version to wait for.
        change: What is done meanwhile.

    Returns:
        Every answer.

    Raises:
        RuntimeError: Another version still answers long after the change.
    """
    changed = asyncio.create_task(change)
    watched = asyncio.gather(*(_until(connection, name, wanted, changed) for connection in watchers))
    await changed
    try:
        answers = await asyncio.wait_for(watched, GIVE_UP_S)
    except TimeoutError as error:
        raise RuntimeError(
            f"expected version {wanted} from every worker, received another for {GIVE_UP_S:g} s"
        ) from error
    return [one for several in answers for one in several]


def settled_after_s(seen: list[Seen], wanted: int, since_s: float) -> float:
    """How long the last answer by another version came after a moment; 0 where none did."""
    return max([0.0, *(at_s - since_s for at_s, version in seen if version != wanted)])


async def _until(connection: Connection, name: str, wanted: int, changed: "asyncio.Task[None]") -> list[Seen]:
    request = f"GET /model-info?model={name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    seen: list[Seen] = []
    while not (changed.done() and seen and seen[-1][1] == wanted):
        _, body = await connection.ask_nowait(request)
        seen.append((time.time(), int(re.sub(r"\D", "", str(json.loads(body)["version"])))))
        await asyncio.sleep(LOOK_EVERY_S)
    return seen

import asyncio
from typing import cast

import pytest

from server.loop_lag import INTERVAL_S, LoopLag
from tests.virtual_time import VirtualTimeLoop, now_s
from tests.virtual_time import run as run_virtually


def told(lag: LoopLag) -> dict[str, float]:
    (family,) = lag.collect()
    return {sample.labels.get("le", sample.name): sample.value for sample in family.samples}


def block(seconds: float) -> None:
    """What a callback does that holds the loop up."""
    cast("VirtualTimeLoop", asyncio.get_running_loop()).now_s += seconds


def test_a_loop_that_nothing_holds_up_is_never_late() -> None:
    async def main() -> None:
        lag = LoopLag(now_s)
        lag.start()
        await asyncio.sleep(10 * INTERVAL_S + 0.01)
        lag.stop()
        assert told(lag)["0.002"] == told(lag)["shoal_loop_lag_seconds_count"] == 10

    run_virtually(main())


def test_what_blocks_the_loop_is_seen_as_long_as_it_was() -> None:
    async def main() -> None:
        lag = LoopLag(now_s)
        lag.start()
        await asyncio.sleep(INTERVAL_S / 2)
        block(0.4)
        await asyncio.sleep(INTERVAL_S / 2)
        lag.stop()
        assert (told(lag)["0.25"], told(lag)["0.5"]) == (0, 1)
        assert told(lag)["shoal_loop_lag_seconds_sum"] == pytest.approx(0.35)

    run_virtually(main())


def test_it_ends_when_it_is_stopped() -> None:
    async def main() -> None:
        lag = LoopLag(now_s)
        lag.start()
        lag.stop()
        await asyncio.sleep(10 * INTERVAL_S)
        assert told(lag)["shoal_loop_lag_seconds_count"] == 0

    run_virtually(main())

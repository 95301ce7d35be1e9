"""Versions on probation, and those that are swapped back."""

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from server.errors import InferenceFailed, InvalidInput
from server.health_bounds import Health, HealthBounds, breach, mean_batch_s
from tests.unit.server.bundle_factory import TRAP, write_bundle, write_plain, write_policy, write_trapped
from tests.unit.server.models_harness import ON_TRIAL, Harness, run


async def shares(harness: Harness, count: int = 400) -> dict[int, float]:
    found = Counter(harness.models.choose("pets", None, f"user-{number}").version for number in range(count))
    return {version: answers / count for version, answers in found.items()}


async def send(harness: Harness, *, bad: int, good: int) -> list[int]:
    """Requests, some of which a trapped graph fails. Returns who answered the good ones."""
    answered = [await harness.ask() for _ in range(good)]
    rows = np.full((1, 4, 4, 3), TRAP, dtype=np.uint8)
    for _ in range(bad):
        model = harness.models.choose("pets")
        with pytest.raises(InferenceFailed), model.lease():
            await model.batcher.submit({"image": rows})
    return answered


def test_version_that_fails_requests_is_swapped_back(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_trapped(tmp_path, 2)
        await harness.look()
        assert harness.states() == {1: "ready", 2: "ready"}
        assert harness.reason(2) == "on probation, version 1 stands by"
        assert harness.reason(1) == "stands by while version 2 is on probation"
        assert await send(harness, good=8, bad=1) == [2] * 8
        await harness.models.poll()
        assert await harness.ask() == 2, "10 requests are needed to judge"
        await send(harness, good=0, bad=1)
        await harness.models.poll()
        assert await harness.ask() == 1
        await harness.look()
        assert harness.states() == {1: "ready", 2: "failed"}
        assert harness.reason(2) == ("rolled back to version 1: 2 of its first 11 requests failed, at most 10.0% may")
        assert harness.kinds(2) == ["loading", "ready", "rolled_back", "draining", "unloaded"]

    run(tmp_path, test, ON_TRIAL)


def test_version_that_was_swapped_back_returns_when_its_folder_changes(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_trapped(tmp_path, 2)
        await harness.look()
        await send(harness, good=0, bad=10)
        await harness.look()
        await harness.look()
        assert harness.states() == {1: "ready", 2: "failed"}
        (tmp_path / "pets" / "2").rename(tmp_path / "pets" / ".2.away")
        await harness.look()
        assert harness.states() == {1: "ready"}
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        assert await harness.ask() == 2

    run(tmp_path, test, ON_TRIAL)


def test_version_that_keeps_to_its_bounds_is_confirmed_and_the_old_one_goes(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_trapped(tmp_path, 2)
        await harness.look()
        await send(harness, good=19, bad=1)
        harness.now_s = 59.9
        await harness.look()
        assert harness.states() == {1: "ready", 2: "ready"}
        harness.now_s = 60.0
        await harness.look()
        assert harness.states() == {1: "unloaded", 2: "ready"}
        assert "confirmed" in harness.kinds(2)
        await send(harness, good=0, bad=50)
        await harness.look()
        assert harness.states() == {1: "unloaded", 2: "ready"}, "its first minutes are over"

    run(tmp_path, test, ON_TRIAL)


def test_version_that_is_much_slower_is_swapped_back(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        old, new = (harness.models.choose("pets", version) for version in (1, 2))
        old.executor.cost_s = lambda rows: 0.010 + 0.001 * rows  # type: ignore[method-assign]
        new.executor.cost_s = lambda rows: 0.030 + 0.003 * rows  # type: ignore[method-assign]
        assert await send(harness, good=10, bad=0) == [2] * 10
        await harness.look()
        assert await harness.ask() == 2, "three times is allowed"
        new.executor.cost_s = lambda rows: 0.031 + 0.003 * rows  # type: ignore[method-assign]
        await harness.look()
        assert await harness.ask() == 1
        assert (
            "rolled back to version 1: its batches took 40.0 ms instead of the previous version's 13.0 ms"
            in harness.reason(2)
        )

    run(tmp_path, test, ON_TRIAL)


def test_what_clients_do_wrong_is_not_held_against_a_version(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        model = harness.models.choose("pets")
        for _ in range(50):
            with pytest.raises(InvalidInput), model.lease():
                raise InvalidInput("no picture")
        assert model.health == Health(requests=0, errors=0)
        await harness.look()
        assert await harness.ask() == 2

    run(tmp_path, test, ON_TRIAL)


def test_canary_that_fails_gives_its_share_back(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_trapped(tmp_path, 2)
    write_policy(tmp_path, '{"default": 1}')

    async def test(harness: Harness) -> None:
        harness.now_s = 1000.0  # version 2 stood by all the time; what counts is when callers meet it
        write_policy(tmp_path, '{"default": 1, "canary": {"version": 2, "percent": 50}}')
        await harness.look()
        assert set(await shares(harness)) == {1, 2}
        assert harness.reason(2) == "on probation, version 1 stands by"
        model = harness.models.choose("pets", 2)
        for _ in range(10):
            with pytest.raises(InferenceFailed), model.lease():
                await model.batcher.submit({"image": np.full((1, 4, 4, 3), TRAP, dtype=np.uint8)})
        await harness.look()
        assert await shares(harness) == {1: 1.0}

    run(tmp_path, test, ON_TRIAL)


def test_only_what_happens_during_probation_counts(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_trapped(tmp_path, 2)
    write_policy(tmp_path, '{"default": 1}')

    async def test(harness: Harness) -> None:
        old, new = (harness.models.choose("pets", version) for version in (1, 2))
        old.executor.cost_s = lambda rows: 0.01  # type: ignore[method-assign]
        new.executor.cost_s = lambda rows: 1.0 if rows == 3 else 0.01  # type: ignore[method-assign]
        for _ in range(20):
            assert await harness.ask("pets", version=2) == 2  # three rows each, before callers met it by themselves
        write_policy(tmp_path, '{"default": 2}')
        await harness.look()
        await send(harness, good=0, bad=9)
        await harness.look()
        assert harness.states() == {1: "ready", 2: "ready"}, "9 requests prove nothing, and 20 came before"
        with new.lease():
            await new.batcher.submit({"image": np.zeros((1, 4, 4, 3), dtype=np.uint8)})
        await harness.look()
        assert "9 of its first 10 requests failed" in harness.reason(2)

    run(tmp_path, test, ON_TRIAL)


def test_slow_batches_before_probation_are_not_held_against_a_version(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2)
    write_policy(tmp_path, '{"default": 1}')

    async def test(harness: Harness) -> None:
        old, new = (harness.models.choose("pets", version) for version in (1, 2))
        old.executor.cost_s = lambda rows: 0.01  # type: ignore[method-assign]
        new.executor.cost_s = lambda rows: 1.0 if rows == 3 else 0.01  # type: ignore[method-assign]
        for _ in range(20):
            assert await harness.ask("pets", version=2) == 2
        write_policy(tmp_path, '{"default": 2}')
        await harness.look()
        for _ in range(20):
            with new.lease():
                await new.batcher.submit({"image": np.zeros((1, 4, 4, 3), dtype=np.uint8)})
        await harness.look()
        assert harness.states() == {1: "ready", 2: "ready"}

    run(tmp_path, test, ON_TRIAL)


def test_next_version_during_probation_lets_the_first_one_go(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        for version in (2, 3):
            write_bundle(tmp_path, "pets", version)
            await harness.look()
        assert harness.states() == {1: "unloaded", 2: "ready", 3: "ready"}

    run(tmp_path, test, ON_TRIAL)


def test_deleting_the_version_on_probation_goes_back_to_the_one_before(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        shutil.move(write_bundle(tmp_path, "pets", 2), tmp_path / "kept")
        shutil.copytree(tmp_path / "kept", tmp_path / "pets" / "2")
        await harness.look()
        assert await harness.ask() == 2
        shutil.rmtree(tmp_path / "pets" / "2")
        await harness.look()
        assert await harness.ask() == 1
        harness.now_s = 100.0
        await harness.look()
        assert harness.states() == {1: "ready"}
        assert harness.reason(1) == ""
        assert "confirmed" not in harness.kinds(2)

    run(tmp_path, test, ON_TRIAL)


def test_overwriting_the_version_on_probation_ends_it(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        write_trapped(tmp_path, 2)
        await harness.look()
        await send(harness, good=0, bad=9)
        shutil.move(tmp_path / "pets" / "2", tmp_path / "pets" / ".2.old")
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        assert await send(harness, good=20, bad=0) == [2] * 20
        assert harness.states() == {1: "unloaded", 2: "ready"}

    run(tmp_path, test, ON_TRIAL)


def test_first_versions_of_a_server_have_nothing_to_go_back_to(tmp_path: Path) -> None:
    write_plain(tmp_path, "pets", 1)
    write_plain(tmp_path, "pets", 2)
    write_policy(tmp_path, '{"default": 1}')  # version 2 comes up first, and would answer until 1 is there

    async def test(harness: Harness) -> None:
        assert harness.reason(1) == harness.reason(2) == ""

    run(tmp_path, test, ON_TRIAL)


BOUNDS = HealthBounds(min_requests=10, max_error_rate=0.1, max_latency_ratio=2, latency_slack_s=0.005)


@pytest.mark.parametrize(
    ("new", "old", "new_ms", "old_ms", "reason"),
    [
        (Health(9, 9), Health(), 1, 1, None),
        (Health(10, 1), Health(), 1, 1, None),
        (Health(10, 2), Health(), 1, 1, "2 of its first 10 requests failed, at most 10.0% may"),
        (Health(10, 2), Health(100, 10), 1, 1, None),  # it failed as often before
        (Health(10, 0), Health(), 20, 10, None),
        (Health(10, 0), Health(), 21, 10, "took 21.0 ms instead of the previous version's 10.0 ms, at most 2 times"),
        (Health(9, 0), Health(), 99, 10, None),
        (Health(10, 0), Health(), 5, 0.1, None),  # fifty times, but nobody will notice
        (Health(10, 0), Health(), 6, 0.1, "took 6.0 ms"),
    ],
)
def test_bounds_are_judged(new: Health, old: Health, new_ms: float, old_ms: float, reason: str | None) -> None:
    found = breach(BOUNDS, new, old, new_ms / 1000, old_ms / 1000)
    assert (found is None) if reason is None else (found is not None and reason in found)


def test_batches_are_weighed_as_they_ran() -> None:
    assert mean_batch_s({1: 3, 8: 1}, lambda rows: 2.0 * rows) == 5.5
    assert mean_batch_s({1: 10}, lambda rows: 1.0 if rows == 1 else 9.0) == 1.0
    assert mean_batch_s({}, lambda _: 9.0) == 0.0

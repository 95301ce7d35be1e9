"""Traffic policies in force."""

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.unit.server.bundle_factory import write_bundle, write_policy
from tests.unit.server.models_harness import Harness, run


async def shares(harness: Harness, count: int = 400) -> dict[int, float]:
    found = Counter(harness.models.choose("pets", None, f"user-{number}").version for number in range(count))
    return {version: answers / count for version, answers in found.items()}


def test_policy_is_in_force_on_the_next_tick(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"default": 1, "versions": "all"}')

    async def test(harness: Harness) -> None:
        assert await harness.ask() == 1
        write_policy(tmp_path, '{"default": 1, "versions": "all", "canary": {"version": 2, "percent": 20}}')
        await harness.models.poll()
        assert await shares(harness) == {1: pytest.approx(0.8, abs=0.07), 2: pytest.approx(0.2, abs=0.07)}
        write_policy(tmp_path, '{"default": 2, "versions": "all"}')
        await harness.models.poll()
        assert await shares(harness) == {2: 1.0}
        (tmp_path / "pets" / "policy.json").unlink()
        await harness.look()
        assert harness.states() == {1: "unloaded", 2: "ready"}
        assert harness.kinds().count("policy") == 4

    run(tmp_path, test)


def test_key_keeps_its_version(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"ab": {"percent": {"1": 50, "2": 50}}}')

    async def test(harness: Harness) -> None:
        first = [await harness.ask(key=f"user-{number}") for number in range(20)]
        assert set(first) == {1, 2}
        assert [await harness.ask(key=f"user-{number}") for number in range(20)] == first

    run(tmp_path, test)


def test_versions_that_a_policy_names_are_loaded_beside_the_latest(tmp_path: Path) -> None:
    for version in (1, 2, 3, 4):
        write_bundle(tmp_path, "pets", version)

    async def test(harness: Harness) -> None:
        write_policy(tmp_path, '{"default": 2}')
        await harness.models.poll()
        assert await harness.ask() == 4, "until the version is loaded"
        await harness.models.settled()
        assert await harness.ask() == 2
        assert harness.states() == {1: "unloaded", 2: "ready", 3: "unloaded", 4: "ready"}

    run(tmp_path, test)


def test_invalid_policy_keeps_the_one_before_and_says_why(tmp_path: Path) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"default": 1}')

    async def test(harness: Harness) -> None:
        write_policy(tmp_path, '{"default": 1, "canary": 2}')
        for _ in range(3):
            await harness.look()
        assert await shares(harness) == {1: 1.0}
        assert "invalid one: canary: " in harness.reason(1)
        assert harness.kinds().count("policy_refused") == 1
        write_policy(tmp_path, '{"default": 2}')
        await harness.look()
        assert await shares(harness) == {2: 1.0}
        assert harness.reason(2) == ""

    run(tmp_path, test)


def test_policy_never_waits_for_a_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in (1, 2):
        write_bundle(tmp_path, "pets", version)
    write_policy(tmp_path, '{"default": 1}')

    async def test(harness: Harness) -> None:
        loading = asyncio.Event()

        async def stuck(*args: object) -> object:
            loading.set()
            return await asyncio.Event().wait()

        monkeypatch.setattr("server.models.load_version", stuck)
        write_bundle(tmp_path, "pets", 3)
        await harness.models.poll()
        await harness.models.poll()
        await loading.wait()
        assert harness.states() == {1: "ready", 2: "ready", 3: "loading"}
        write_policy(tmp_path, '{"default": 2}')
        await harness.models.poll()
        assert await harness.ask() == 2

    run(tmp_path, test)

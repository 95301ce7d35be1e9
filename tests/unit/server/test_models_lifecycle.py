"""Versions come, take over, and go, with real sessions."""

import asyncio
import gc
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from server.errors import Draining, ModelNotFound, ModelNotReady
from server.models import LoadedModel
from server.repository import VersionPolicy
from tests.unit.server.bundle_factory import (
    LABELS,
    graph,
    pictures,
    read_manifest,
    weights,
    write_bundle,
    write_manifest,
    write_plain,
)
from tests.unit.server.models_harness import OPTIONS, Harness, answer, run


def test_latest_version_of_every_model_is_loaded(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_bundle(tmp_path, "pets", 2)
    write_plain(tmp_path, "any", 7)

    async def test(harness: Harness) -> None:
        assert harness.models.ready
        assert [(model.name, model.version) for model in harness.models.loaded] == [("any", 7), ("pets", 2)]
        assert harness.states() == {1: "unloaded", 2: "ready"}
        assert harness.reason(1) == "not wanted by the version policy 'latest:1'"
        assert await harness.ask("pets") == 2
        assert await harness.ask("any") == 7

    run(tmp_path, test)


def test_loaded_model_tells_what_it_is(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 2)

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        assert (model.name, model.version, model.variant, model.labels) == ("pets", 2, "float32", LABELS)
        assert (model.image_input, model.providers) == ("image", ("cpu",))
        assert model.image is not None
        assert model.image.shape == (4, 4, 3)
        assert [spec.shape for spec in (*model.inputs, *model.outputs)] == [(-1, 4, 4, 3), (-1, 3)]
        assert model.manifest is not None
        assert model.manifest.architecture == "tiny"

    run(tmp_path, test)


@pytest.mark.parametrize(("default", "expected"), [("", "any"), ("pets", "pets")])
def test_request_that_names_no_model_meets_the_default(tmp_path: Path, default: str, expected: str) -> None:
    write_bundle(tmp_path, "pets", 1)
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        assert harness.models.choose("").name == expected == harness.models.default_model

    run(tmp_path, test, replace(OPTIONS, default_model=default))


@pytest.mark.parametrize(("policy", "loaded"), [("latest:2", [2, 3]), ("all", [1, 2, 3]), ("1,2,9", [1, 2])])
def test_version_policy_says_what_is_loaded(tmp_path: Path, policy: str, loaded: list[int]) -> None:
    for version in (1, 2, 3):
        write_plain(tmp_path, "any", version)

    async def test(harness: Harness) -> None:
        assert [model.version for model in harness.models.loaded] == loaded
        assert [await harness.ask(version=version) for version in loaded] == loaded
        assert await harness.ask() == max(loaded)

    run(tmp_path, test, replace(OPTIONS, versions=VersionPolicy.parse(policy)))


def test_new_version_takes_over_and_the_old_one_is_freed(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        assert await harness.ask() == 1
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        assert await harness.ask() == 2
        assert harness.states() == {1: "unloaded", 2: "ready"}
        assert harness.kinds(1) == ["loading", "ready", "draining", "unloaded"]
        assert harness.kinds(2) == ["loading", "ready"]

    run(tmp_path, test)


def test_request_that_chose_the_old_version_finishes_on_it(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        old = harness.models.choose("pets")
        with old.lease():
            write_bundle(tmp_path, "pets", 2)
            await harness.look(drain=False)
            assert await harness.ask() == 2
            assert harness.states() == {1: "draining", 2: "ready"}
            assert await answer(old) == 1
            assert old.in_flight == 1
        await harness.models.drained()
        assert harness.states()[1] == "unloaded"
        with pytest.raises(Draining, match="has just been replaced"), old.lease():
            raise AssertionError("a closed model was leased")

    run(tmp_path, test)


def test_swaps_lose_no_request_and_mix_no_versions(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        stop = asyncio.Event()

        async def client() -> list[int]:
            answers = []
            while not stop.is_set():
                answers.append(await harness.ask())
            return answers

        clients = [asyncio.create_task(client()) for _ in range(8)]
        for version in (2, 3, 4):
            write_bundle(tmp_path, "pets", version)
            await harness.look()
        stop.set()
        for answers in await asyncio.gather(*clients):
            assert answers == sorted(answers), "a request met a version that had been replaced"
        assert await harness.ask() == 4

    run(tmp_path, test)


def test_version_that_is_overwritten_in_place_is_loaded_again(tmp_path: Path) -> None:
    folder = write_plain(tmp_path, "any", 1, seed=5)

    async def test(harness: Harness) -> None:
        before = harness.models.choose("any")
        (folder / "model.onnx").write_bytes(graph(weights(1), fails_on=0))
        await harness.look()
        assert harness.models.choose("any") is not before
        assert await harness.ask() == 1
        assert harness.kinds() == ["loading", "ready", "loading", "ready", "draining", "unloaded"]

    run(tmp_path, test)


def test_deleted_version_goes_when_another_is_in_place(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    write_plain(tmp_path, "any", 2)

    async def test(harness: Harness) -> None:
        shutil.rmtree(tmp_path / "any" / "2")
        await harness.look()
        assert await harness.ask() == 1
        assert harness.states("any") == {1: "ready"}
        loading, gone = harness.kinds(1).index("ready"), [e.kind for e in harness.events if e.version == 2]
        assert loading >= 0
        assert gone == ["loading", "ready", "draining", "unloaded"]

    run(tmp_path, test)


def test_last_version_is_kept_although_it_is_deleted(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        shutil.rmtree(tmp_path / "any" / "1")
        await harness.look()
        assert await harness.ask() == 1

    run(tmp_path, test)


def test_deleted_model_is_let_go_and_forgotten(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    write_plain(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        shutil.rmtree(tmp_path / "any")
        await harness.look()
        assert [state.name for state in harness.models.index()] == ["pets"]
        with pytest.raises(ModelNotFound, match=r"one of the models served here \('pets'\), received 'any'"):
            harness.models.choose("any")
        assert harness.models.default_model == "pets"

    run(tmp_path, test)


def test_models_folder_that_goes_away_unloads_nothing(tmp_path: Path) -> None:
    write_plain(tmp_path / "models", "any", 1)

    async def test(harness: Harness) -> None:
        (tmp_path / "models").rename(tmp_path / "away")
        await harness.look()
        await harness.look()
        assert await harness.ask() == 1
        assert harness.kinds().count("scan") == 1, "one problem is told once"
        (tmp_path / "away").rename(tmp_path / "models")
        write_plain(tmp_path / "models", "any", 2)
        await harness.look()
        assert await harness.ask() == 2

    run(tmp_path / "models", test)


def test_half_copied_version_waits_until_it_is_whole(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    data = graph(weights(2))

    async def test(harness: Harness) -> None:
        folder = tmp_path / "any" / "2"
        folder.mkdir()
        for part in (data[:100], data[:1000], data):
            (folder / "model.onnx").write_bytes(part)
            await harness.models.poll()
            await harness.models.settled()
            assert harness.kinds(2) == []
        await harness.look()
        assert await harness.ask() == 2

    run(tmp_path, test)


def test_folder_that_holds_no_version_is_no_model(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    (tmp_path / "notes").mkdir()

    async def test(harness: Harness) -> None:
        assert [state.name for state in harness.models.index()] == ["any"]
        (tmp_path / "pets" / "1").mkdir(parents=True)
        await harness.look()
        with pytest.raises(ModelNotFound, match="received 'pets'"):
            harness.models.choose("pets")

    run(tmp_path, test)


def test_failed_model_whose_folder_goes_is_forgotten(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    (write_plain(tmp_path, "bad", 1) / "model.onnx").write_bytes(b"no graph")

    async def test(harness: Harness) -> None:
        assert harness.states("bad") == {1: "failed"}
        shutil.rmtree(tmp_path / "bad")
        await harness.look()
        assert harness.states("bad") == {}

    run(tmp_path, test)


def test_unknown_models_and_versions_are_told_apart(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    write_plain(tmp_path, "any", 2)

    async def test(harness: Harness) -> None:
        with pytest.raises(ModelNotFound, match="received 'other'"):
            harness.models.choose("other")
        for version in (1, 9):
            with pytest.raises(ModelNotFound, match=rf"a loaded version of 'any' \(2\), received {version}"):
                harness.models.choose("any", version)

    run(tmp_path, test)


def test_known_model_without_a_loaded_version_is_not_ready(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    (write_plain(tmp_path, "bad", 3) / "model.onnx").write_bytes(b"no graph")

    async def test(harness: Harness) -> None:
        assert harness.models.ready
        with pytest.raises(ModelNotReady, match=r"'bad' cannot answer now: version 3 is failed \("):
            harness.models.choose("bad")

    run(tmp_path, test)


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the cycle collector: a server that froze what it loaded at the start must free it all the same."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def join_threads(version: int) -> None:
    """Waits for the last instructions of a closed version's thread, which still refer to its executor."""
    for thread in threading.enumerate():
        if thread.name == f"ort pets/{version}":
            thread.join(timeout=10)
            assert not thread.is_alive(), f"{thread.name} never ends"


@pytest.mark.usefixtures("no_collector")
def test_replaced_versions_are_really_freed(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        gone: list[weakref.ref[Any]] = []
        for version in range(2, 5):
            model = harness.models.choose("pets")
            gone += [weakref.ref(model), weakref.ref(model.executor), weakref.ref(model.executor._session)]
            del model
            write_bundle(tmp_path, "pets", version)
            await harness.look()
            join_threads(version - 1)
        assert [reference() for reference in gone] == [None] * len(gone)

    run(tmp_path, test)


def test_session_is_freed_although_somebody_keeps_the_model(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        session = weakref.ref(model.executor._session)
        write_bundle(tmp_path, "pets", 2)
        await harness.look()
        assert session() is None
        assert (model.version, model.providers) == (1, ("cpu",))

    run(tmp_path, test)


@pytest.mark.slow
def test_thirty_reloads_leave_nothing_behind(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        for version in range(2, 33):
            write_bundle(tmp_path, "pets", version)
            shutil.rmtree(tmp_path / "pets" / str(version - 1))
            await harness.look()
            assert await harness.ask() == version
            join_threads(version - 1)
        gc.collect()
        models = [each for each in gc.get_objects() if isinstance(each, LoadedModel)]
        assert [model.version for model in models if model.bundle.folder.is_relative_to(tmp_path)] == [32]
        assert harness.states() == {32: "ready"}

    run(tmp_path, test)


def test_manifest_and_graph_have_to_agree(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    folder = write_bundle(tmp_path, "pets", 2)
    manifest = read_manifest(folder)
    manifest.outputs[0].name = "scores"
    write_manifest(folder, manifest)

    async def test(harness: Harness) -> None:
        assert await harness.ask() == 1
        assert "expected outputs scores FP32[-1, 3] by the manifest" in harness.reason(2)

    run(tmp_path, test)


def test_models_takes_rows_up_to_its_own_batch(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1, golden_rows=11)  # more than two batches of 4

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        with model.lease():
            received = await model.batcher.submit({"image": pictures(9)})
        assert np.shape(received.outputs["probabilities"]) == (9, 3)
        assert model.health.requests == 1

    run(tmp_path, test)

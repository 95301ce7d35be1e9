"""Starting, stopping, and who decides what is loaded."""

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from server import memory
from server.errors import Draining, InvalidInput, ModelNotFound, ModelNotReady, StartupError
from server.executor import Executor
from server.models import LoadedModel, Models
from server.versions import load_version
from tests.unit.server.bundle_factory import graph, weights, write_bundle, write_plain
from tests.unit.server.models_harness import OPTIONS, Harness, answer, run


def test_closed_models_refuse_and_hold_nothing(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        await harness.models.start()
        model = harness.models.choose("any")
        late = asyncio.create_task(answer_slowly(model))
        await asyncio.sleep(0)
        await harness.models.close()
        assert await late == 1, "what was accepted is answered"
        assert not harness.models.ready
        assert harness.models.index() == ()
        with pytest.raises(Draining, match="the server is stopping"):
            harness.models.choose("any")

    run(tmp_path, test, start=False)


async def answer_slowly(model: LoadedModel) -> int:
    with model.lease():
        for _ in range(50):
            await asyncio.sleep(0)
        return await answer(model)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.joinpath("x").touch(), "found none; export a model there"),
        (lambda folder: folder.rmdir(), "expected a folder of models at .*: No such file"),
        (
            lambda folder: write_plain(folder, "any", 1).joinpath("model.onnx").write_bytes(b"x"),
            "none of the models in .* can be served: any 1: ",
        ),
    ],
)
def test_start_with_nothing_to_serve_says_what_to_do(tmp_path: Path, make: Any, message: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    make(folder)

    async def test(harness: Harness) -> None:
        with pytest.raises(StartupError, match=message):
            await harness.models.start()

    run(folder, test, start=False)


def test_start_falls_back_to_an_older_version_that_works(tmp_path: Path) -> None:
    write_bundle(tmp_path, "pets", 1)
    (write_bundle(tmp_path, "pets", 2) / "model.onnx").write_bytes(b"x")

    async def test(harness: Harness) -> None:
        assert await harness.ask() == 1
        assert harness.states() == {1: "ready", 2: "failed"}

    run(tmp_path, test)


def test_mode_none_never_looks_again(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        write_plain(tmp_path, "any", 2)
        await harness.look()
        assert await harness.ask() == 1
        with pytest.raises(InvalidInput, match="mode 'explicit', the server runs with 'none'"):
            await harness.models.load("any")

    run(tmp_path, test, replace(OPTIONS, mode="none"))


def test_mode_explicit_loads_and_unloads_what_it_is_told(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)
    write_plain(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        models = harness.models
        assert not models.loaded
        with pytest.raises(ModelNotFound, match="received 'other'"):
            await models.load("other")
        await models.load("pets")
        assert [model.name for model in models.loaded] == ["pets"]
        write_plain(tmp_path, "pets", 2)
        await harness.look()
        assert await harness.ask("pets") == 1
        await models.load("pets")
        assert await harness.ask("pets") == 2
        await models.unload("pets")
        assert not models.loaded
        assert not models.ready
        with pytest.raises(ModelNotFound):
            await models.unload("pets")

    run(tmp_path, test, replace(OPTIONS, mode="explicit"))


def test_explicit_load_that_fails_says_why_and_may_be_tried_again(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        folder = write_plain(tmp_path, "any", 2)
        (folder / "model.onnx").write_bytes(b"x")
        for _ in range(2):
            with pytest.raises(ModelNotReady, match="'any' could not be loaded: "):
                await harness.models.load("any")
            assert await harness.ask() == 1
        assert harness.kinds(2) == ["loading", "failed"] * 2
        (folder / "model.onnx").write_bytes(graph(weights(2)))
        await harness.models.load("any")
        assert await harness.ask() == 2

    run(tmp_path, test, replace(OPTIONS, mode="explicit", preload=("any",)))


def test_start_that_is_cancelled_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path, "any", 1)
    write_plain(tmp_path, "pets", 1)
    reached = asyncio.Event()

    async def stuck(folder: Path, *args: Any) -> LoadedModel:
        if folder.parent.name == "pets":
            reached.set()
            await asyncio.Event().wait()
        return await load_version(folder, *args)

    monkeypatch.setattr("server.models.load_version", stuck)

    async def test(harness: Harness) -> None:
        starting = asyncio.create_task(harness.models.start())
        await reached.wait()
        loaded = harness.models.choose("any")
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert not harness.models.loaded
        with pytest.raises(Draining), loaded.lease():
            raise AssertionError("a closed model was leased")

    run(tmp_path, test, start=False)


def test_close_during_a_load_closes_its_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path, "any", 1)
    closed: list[Executor] = []
    really_close = Executor.close

    async def close(self: Executor) -> None:
        closed.append(self)
        await really_close(self)

    async def test(harness: Harness) -> None:
        await harness.models.start()
        warming = asyncio.Event()

        async def warm(self: Executor) -> None:
            warming.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Executor, "warm", warm)
        monkeypatch.setattr(Executor, "close", close)
        write_plain(tmp_path, "any", 2)
        await harness.models.poll()
        await harness.models.poll()
        await warming.wait()
        await harness.models.close()
        assert len(set(closed)) == 2, "the version that served, and the one that was being loaded"

    run(tmp_path, test, start=False)


def test_listener_that_fails_stops_nothing(tmp_path: Path) -> None:
    write_plain(tmp_path, "any", 1)

    async def main() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        def fail(event: object) -> None:
            raise OSError("no space left")

        models = Models(tmp_path, OPTIONS, on_event=fail)
        await models.start()
        assert models.ready
        await models.close()
        assert "the listener of model events failed on 'loading'" in [context["message"] for context in reported]

    asyncio.run(main())


def test_ticks_come_by_themselves_and_outlive_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path, "any", 1)

    async def main() -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        models = Models(tmp_path, replace(OPTIONS, poll_interval_s=0.001))
        ticks, enough = [0], asyncio.Event()

        async def poll() -> None:
            ticks[0] += 1
            if ticks[0] == 1:
                raise ValueError("odd folder")
            enough.set()

        monkeypatch.setattr(models, "poll", poll)
        await models.start()
        await enough.wait()
        await models.close()
        assert [str(context["exception"]) for context in reported] == ["odd folder"]

    asyncio.run(main())


def test_fault_of_the_worker_is_reported_and_the_next_change_is_taken_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        with monkeypatch.context() as patch:
            patch.setattr("server.lifecycle.isinstance", lambda *_: 1 / 0, raising=False)
            write_plain(tmp_path, "any", 2)
            await harness.look()
        assert [type(context["exception"]) for context in reported] == [ZeroDivisionError]
        assert await harness.ask() == 1
        write_plain(tmp_path, "any", 3)
        await harness.look()
        assert await harness.ask() == 3

    run(tmp_path, test)


def test_change_during_a_load_is_taken_in_after_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plain(tmp_path, "any", 1)

    async def test(harness: Harness) -> None:
        go, loading = asyncio.Event(), asyncio.Event()

        async def wait_then_load(folder: Path, *args: Any) -> LoadedModel:
            loading.set()
            await go.wait()
            return await load_version(folder, *args)

        monkeypatch.setattr("server.models.load_version", wait_then_load)
        write_plain(tmp_path, "any", 2)
        await harness.models.poll()
        await harness.models.poll()
        await loading.wait()
        write_plain(tmp_path, "any", 3)
        await harness.models.poll()
        await harness.models.poll()
        go.set()
        await harness.models.settled()
        assert await harness.ask() == 3
        await harness.models.drained()
        assert harness.states("any") == {1: "unloaded", 2: "unloaded", 3: "ready"}

    run(tmp_path, test)


def test_memory_is_given_back_only_where_the_system_can(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr("server.memory.ctypes.CDLL", lambda _: SimpleNamespace(malloc_trim=calls.append))
    memory.trim()
    assert calls == [0]
    monkeypatch.setattr("server.memory.ctypes.CDLL", lambda _: SimpleNamespace())
    memory.trim()
    assert calls == [0]

import asyncio
import importlib.metadata
import itertools
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from server import executor as executor_module
from server.errors import InferenceFailed, InvalidInput, StartupError
from server.executor import Executor, ExecutorOptions, check_single_runtime
from server.tensors import TensorSpec


def save(folder: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] = []) -> Path:  # noqa: B006
    path = folder / "model" / "1" / "model.onnx"
    path.parent.mkdir(parents=True)
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def tensor(name: str, kind: int, *shape: int | str | None) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def doubling(tmp_path: Path) -> Path:
    """y = x + x, row by row."""
    return save(
        tmp_path,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, "batch", 3)],
        [tensor("y", TensorProto.FLOAT, "batch", 3)],
    )


def load_and(path: Path, use: Any, **options: Any) -> Any:
    """Loads, uses and closes an executor, on a real loop: there is a real thread behind it."""

    async def main() -> Any:
        executor = await Executor.load(path, ExecutorOptions(**options))
        try:
            return await use(executor)
        finally:
            await executor.close()

    return asyncio.run(main())


def test_a_graph_is_loaded_run_and_described(doubling: Path) -> None:
    async def use(executor: Executor) -> Any:
        assert executor.inputs == (TensorSpec("x", "FP32", (-1, 3)),)
        assert executor.outputs == (TensorSpec("y", "FP32", (-1, 3)),)
        assert executor.providers == ("cpu",)
        assert executor.max_batch_rows == 7
        return await executor.run({"x": np.ones((2, 3), np.float32)})

    outputs = load_and(doubling, use, max_batch_rows=7)
    np.testing.assert_array_equal(outputs["y"], np.full((2, 3), 2, np.float32))


def test_runs_keep_their_order_and_their_memory(doubling: Path) -> None:
    async def use(executor: Executor) -> Any:
        return await asyncio.gather(*(executor.run({"x": np.full((1, 3), n, np.float32)}) for n in range(50)))

    answers = load_and(doubling, use)
    assert [float(answer["y"][0, 0]) for answer in answers] == [2.0 * n for n in range(50)]
    assert not any(np.may_share_memory(one["y"], two["y"]) for one, two in itertools.combinations(answers, 2))


def test_the_session_runs_on_one_thread_of_its_own(doubling: Path) -> None:
    async def use(executor: Executor) -> None:
        session, seen = executor._session, []

        def spy(*arguments: Any) -> Any:
            seen.append(threading.current_thread().name)
            return session.run(*arguments)

        executor._session = SimpleNamespace(run=spy, get_providers=session.get_providers)
        await executor.run({"x": np.ones((1, 3), np.float32)})
        await executor.run({"x": np.ones((1, 3), np.float32)})
        assert seen == ["ort model/1"] * 2

    load_and(doubling, use)


def test_every_batch_size_is_warmed_and_measured(doubling: Path) -> None:
    async def use(executor: Executor) -> None:
        assert dict(executor.costs) == {}
        assert executor.cost_s(1) == 0.0
        await executor.warm()
        assert list(executor.costs) == [1, 2, 4, 6]
        assert all(seconds > 0 for seconds in executor.costs.values())
        assert executor.cost_s(4) == executor.costs[4]

    load_and(doubling, use, max_batch_rows=6)


def test_the_best_of_a_few_warm_runs_counts_and_long_ones_are_not_repeated(
    doubling: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([9.0, 0.03, 0.02, 0.01, 0.04, 0.05, 8.0, 0.3])

    async def use(executor: Executor) -> None:
        monkeypatch.setattr(executor, "_timed_run", lambda inputs: ({}, next(times)))
        await executor.warm()
        assert dict(executor.costs) == {1: 0.01, 2: 0.3}

    load_and(doubling, use, max_batch_rows=2)


def test_real_runs_keep_the_cost_up_to_date(doubling: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def use(executor: Executor) -> None:
        executor._cost.measure(2, 0.010)
        monkeypatch.setattr(executor, "_timed_run", lambda inputs: ({}, 0.020))
        await executor.run({"x": np.ones((2, 3), np.float32)})
        assert executor.cost_s(2) == pytest.approx(0.015)
        assert executor.costs[2] == pytest.approx(0.015)

    load_and(doubling, use)


def test_a_graph_with_a_fixed_batch_is_warmed_at_that_size(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, 2, 3)],
        [tensor("y", TensorProto.FLOAT, 2, 3)],
    )

    async def use(executor: Executor) -> None:
        assert executor.inputs[0].shape == (2, 3)
        await executor.warm()
        assert list(executor.costs) == [1]
        await executor.run({"x": np.ones((2, 3), np.float32)})

    load_and(path, use)


def test_free_dimensions_are_warmed_as_one(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [helper.make_node("Add", ["x", "x"], ["y"])],
        [tensor("x", TensorProto.INT64, "batch", None, "width")],
        [tensor("y", TensorProto.INT64, "batch", None, "width")],
    )

    async def use(executor: Executor) -> None:
        assert executor.inputs[0].shape == (-1, -1, -1)
        await executor.warm()
        assert list(executor.costs) == [1, 2]

    load_and(path, use, max_batch_rows=2)


def test_a_graph_that_cannot_run_on_zeros_stays_cold_and_learns_from_real_runs(tmp_path: Path) -> None:
    indices = numpy_helper.from_array(np.array([2], np.int64), "indices")
    path = save(
        tmp_path,
        [helper.make_node("Gather", ["x", "indices"], ["y"], axis=1)],
        [tensor("x", TensorProto.FLOAT, "batch", "width")],
        [tensor("y", TensorProto.FLOAT, "batch", 1)],
        [indices],
    )

    async def use(executor: Executor) -> None:
        await executor.warm()
        assert dict(executor.costs) == {}
        await executor.run({"x": np.ones((2, 3), np.float32)})
        assert list(executor.costs) == [2]
        assert executor.cost_s(4) == pytest.approx(2 * executor.cost_s(2))

    load_and(path, use)


def test_strings_are_bytes_outside_and_utf8_inside(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [helper.make_node("Identity", ["s"], ["t"])],
        [tensor("s", TensorProto.STRING, "batch", 2)],
        [tensor("t", TensorProto.STRING, "batch", 2)],
    )

    async def use(executor: Executor) -> Any:
        await executor.warm()
        words = np.array([[b"ol\xc3\xa9", b""], ["text", b"x"]], dtype=object)
        with pytest.raises(InvalidInput, match="expected UTF-8 strings for 's'"):
            await executor.run({"s": np.array([[b"\xff", b""]], dtype=object)})
        return await executor.run({"s": words})

    outputs = load_and(path, use)
    assert outputs["t"].dtype == object
    assert outputs["t"].tolist() == [[b"ol\xc3\xa9", b""], [b"text", b"x"]]


def test_what_onnx_runtime_raises_reaches_the_caller_and_the_next_run_is_fine(doubling: Path) -> None:
    async def use(executor: Executor) -> Any:
        with pytest.raises(Exception, match="invalid dimensions"):
            await executor.run({"x": np.ones((1, 4), np.float32)})
        return await executor.run({"x": np.ones((1, 3), np.float32)})

    assert load_and(doubling, use)["y"][0, 0] == 2.0


def test_close_finishes_what_was_asked_for_and_frees_the_session(doubling: Path) -> None:
    async def main() -> None:
        executor = await Executor.load(doubling, ExecutorOptions())
        running = asyncio.ensure_future(executor.run({"x": np.ones((1, 3), np.float32)}))
        await asyncio.sleep(0)
        await executor.close()
        assert (await running)["y"][0, 0] == 2.0
        assert not hasattr(executor._session, "run")
        assert executor.providers == ("cpu",)
        with pytest.raises(InferenceFailed, match="was closed"):
            await executor.run({"x": np.ones((1, 3), np.float32)})
        await executor.close()

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"", b"no graph at all"])
def test_a_file_that_is_no_graph_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    before = threading.active_count()
    with pytest.raises(StartupError, match=r"cannot load .*model\.onnx on cpu"):
        asyncio.run(Executor.load(path, ExecutorOptions()))
    deadline = threading.Event()
    while threading.active_count() > before:  # its thread has been told to end and is on its way
        deadline.wait(0.001)


def test_a_type_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        [helper.make_node("SequenceConstruct", ["x"], ["y"])],
        [tensor("x", TensorProto.FLOAT, "batch")],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )
    with pytest.raises(StartupError, match=r"plain types .* received seq\(tensor\(float\)\) for 'y'"):
        asyncio.run(Executor.load(path, ExecutorOptions()))


# ---- providers ----


class FakeRuntime:
    """ONNX Runtime with chosen providers. Those in `broken` are built in, but fail in silence when loading."""

    class ExecutionMode:
        ORT_SEQUENTIAL = 0

    def __init__(self, available: tuple[str, ...], broken: tuple[str, ...] = ()) -> None:
        self.available = list(available)
        self.broken = broken
        self.sessions: list[tuple[list[Any], dict[str, str], dict[str, Any]]] = []

    def get_available_providers(self) -> list[str]:
        return self.available

    def SessionOptions(self) -> Any:  # noqa: N802
        entries: dict[str, str] = {}
        return SimpleNamespace(entries=entries, add_session_config_entry=entries.__setitem__)

    def InferenceSession(self, _: Path, settings: Any, providers: list[Any], **kwargs: Any) -> Any:  # noqa: N802
        self.sessions.append((providers, settings.entries, {**vars(settings), **kwargs}))
        names = [name if isinstance(name, str) else name[0] for name in providers]
        serving = [name for name in names if name not in self.broken] + ["CPUExecutionProvider"]
        return SimpleNamespace(get_providers=lambda: serving, get_inputs=list, get_outputs=list)


CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"


def load_on(
    runtime: FakeRuntime, monkeypatch: pytest.MonkeyPatch, *providers: str, device: int | None = None
) -> tuple[str, ...]:
    monkeypatch.setattr(executor_module, "_runtime", lambda: runtime)

    async def use(executor: Executor) -> tuple[str, ...]:
        return executor.providers

    result: tuple[str, ...] = load_and(Path("m/1/model.onnx"), use, providers=providers, device=device)
    return result


def test_a_named_device_is_cudas_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime((CUDA, CPU))
    load_on(runtime, monkeypatch, "cuda", "cpu", device=1)
    assert runtime.sessions[0][0] == [(CUDA, {"device_id": "1"}), CPU]


def test_the_first_provider_that_serves_is_used_with_the_later_ones_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime((CUDA, OPENVINO, CPU))
    assert load_on(runtime, monkeypatch, "cuda", "cpu") == ("cuda", "cpu")
    assert runtime.sessions[0][0] == [CUDA, CPU]


def test_a_missing_provider_is_an_error_and_never_the_cpu_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match=r"expected one of the providers cuda, .*can use cpu here.*add cpu"):
        load_on(FakeRuntime((CPU,)), monkeypatch, "cuda")


def test_a_provider_that_fails_in_silence_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match="expected one of the providers cuda, openvino"):
        load_on(FakeRuntime((CUDA, OPENVINO, CPU), broken=(CUDA, OPENVINO)), monkeypatch, "cuda", "openvino")


def test_a_later_provider_serves_only_where_it_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_on(FakeRuntime((CPU,)), monkeypatch, "cuda", "cpu") == ("cpu",)
    assert load_on(FakeRuntime((CUDA, CPU), broken=(CUDA,)), monkeypatch, "cuda", "cpu") == ("cpu",)
    runtime = FakeRuntime((CUDA, OPENVINO, CPU), broken=(CUDA,))
    assert load_on(runtime, monkeypatch, "cuda", "openvino", "cpu") == ("openvino", "cpu")
    assert [providers for providers, _, _ in runtime.sessions] == [[CUDA, OPENVINO, CPU], [OPENVINO, CPU]]


def test_single_nodes_may_not_fall_back_either_unless_cpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime((CUDA, CPU))
    load_on(runtime, monkeypatch, "cuda")
    load_on(runtime, monkeypatch, "cuda", "cpu")
    assert [entries.get("session.disable_cpu_ep_fallback") for _, entries, _ in runtime.sessions] == ["1", None]
    assert all(settings["enable_fallback"] == 0 for _, _, settings in runtime.sessions)


def test_a_session_is_built_quiet_sequential_and_without_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = FakeRuntime((CPU,))
    load_on(runtime, monkeypatch, "cpu")
    _, entries, settings = runtime.sessions[0]
    assert entries == {"session.intra_op.allow_spinning": "0"}
    assert (settings["intra_op_num_threads"], settings["inter_op_num_threads"]) == (1, 1)
    assert (settings["execution_mode"], settings["log_severity_level"]) == (0, 3)


@pytest.mark.parametrize("providers", [(), ("tpu",), ("cpu", "tpu")])
def test_an_unknown_provider_is_named(monkeypatch: pytest.MonkeyPatch, providers: tuple[str, ...]) -> None:
    with pytest.raises(StartupError, match=r"expected providers out of cpu, cuda, openvino, received (none|tpu)"):
        load_on(FakeRuntime((CPU,)), monkeypatch, *providers)


def test_cuda_is_an_error_here_with_the_real_runtime_where_there_is_none(doubling: Path) -> None:
    if CUDA in executor_module._runtime().get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(StartupError, match="expected one of the providers cuda"):
        asyncio.run(Executor.load(doubling, ExecutorOptions(providers=("cuda",))))


# ---- one build of ONNX Runtime ----


def install(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    def version(name: str) -> str:
        if name in names:
            return "1.0"
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)


@pytest.mark.parametrize("name", executor_module.RUNTIMES)
def test_one_build_is_right(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    install(monkeypatch, name, "numpy")
    check_single_runtime()


def test_two_builds_over_each_other_are_refused_with_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-gpu")
    with pytest.raises(
        StartupError, match=r"received onnxruntime and onnxruntime-gpu; .*pip uninstall -y onnxruntime onn"
    ):
        check_single_runtime()


def test_no_build_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(StartupError, match=r"received none; .*extras cpu, gpu or openvino"):
        check_single_runtime()


def test_two_builds_stop_a_load(monkeypatch: pytest.MonkeyPatch, doubling: Path) -> None:
    install(monkeypatch, "onnxruntime", "onnxruntime-openvino")
    with pytest.raises(StartupError, match="exactly one build"):
        asyncio.run(Executor.load(doubling, ExecutorOptions()))

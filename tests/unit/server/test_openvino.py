"""OpenVINO as a plug-in of ONNX Runtime: what is asked of it, and that it never hands over to the CPU in silence."""

import asyncio
import importlib
import importlib.util
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from server import executor as executor_module
from server import openvino, versions
from server.errors import StartupError
from server.executor import Executor, ExecutorOptions, rivals
from server.models import ModelsOptions
from tests.unit.server.bundle_factory import graph, pictures, probabilities, weights, write_bundle
from tests.unit.server.models_harness import LOAD, OPTIONS, Harness, run

CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", openvino.OPENVINO


@pytest.fixture
def real_device() -> None:
    """Skips where OpenVINO is not installed, and where its plug-in knows no processor (it looks for Intel's)."""
    runtime = executor_module._runtime()
    openvino.register(runtime)
    if OPENVINO not in runtime.get_available_providers():
        pytest.skip("OpenVINO offers no device here: pip install shoal[openvino], on an Intel processor")


class PluginRuntime:
    """ONNX Runtime with OpenVINO as a plug-in, which takes so many nodes of every graph, where it has a device."""

    ExecutionMode = SimpleNamespace(ORT_SEQUENTIAL=0)

    def __init__(self, *, takes: int, offers_device: bool = True) -> None:
        self.takes = takes
        self.offers_device = offers_device
        self.registered = [CPU]
        self.libraries: list[str] = []
        self.devices: list[dict[str, str]] = []
        self.sessions: list[Any] = []

    def get_available_providers(self) -> list[str]:
        return self.registered

    def register_execution_provider_library(self, name: str, path: str) -> None:
        assert Path(path).exists()
        if name in self.libraries:
            raise RuntimeError(f"EP library is already registered under {name}")
        self.libraries.append(name)
        if self.offers_device:
            self.registered = [*self.registered, OPENVINO]

    def get_ep_devices(self) -> list[Any]:
        auto = SimpleNamespace(ep_name=f"{OPENVINO}.AUTO", ep_metadata={"ov_device": "CPU"})
        gpu = SimpleNamespace(ep_name=OPENVINO, ep_metadata={"ov_device": "GPU"})
        cpu = SimpleNamespace(ep_name=OPENVINO, ep_metadata={"ov_device": "CPU"})
        return [auto, gpu, cpu] if OPENVINO in self.registered else []

    def SessionOptions(self) -> Any:  # noqa: N802
        def add_provider_for_devices(devices: list[Any], options: dict[str, str]) -> None:
            assert [(one.ep_name, one.ep_metadata) for one in devices] == [(OPENVINO, {"ov_device": "CPU"})]
            self.devices.append(options)

        entries: dict[str, str] = {}
        return SimpleNamespace(
            entries=entries,
            add_session_config_entry=entries.__setitem__,
            add_provider_for_devices=add_provider_for_devices,
        )

    def InferenceSession(self, _: Path, settings: Any, providers: list[Any] | None, **kwargs: Any) -> Any:  # noqa: N802
        self.sessions.append(providers)
        parts = [SimpleNamespace(ep_name=OPENVINO, get_nodes=lambda: ["node"] * self.takes)]
        return SimpleNamespace(
            get_providers=lambda: [OPENVINO, CPU] if providers is None else providers,
            get_provider_graph_assignment_info=lambda: parts,
            get_inputs=list,
            get_outputs=list,
        )


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package of that name with a library, wherever the real one is not installed."""
    library = tmp_path / "plugin.so"
    library.touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(importlib, "import_module", lambda _: SimpleNamespace(get_library_path=lambda: library))


def providers_on(runtime: PluginRuntime, monkeypatch: pytest.MonkeyPatch, *providers: str) -> tuple[str, ...]:
    monkeypatch.setattr(executor_module, "_runtime", lambda: runtime)

    async def main() -> tuple[str, ...]:
        executor = await Executor.load(Path("m/1/model.onnx"), ExecutorOptions(providers=providers, intra_op_threads=3))
        await executor.close()
        return executor.providers

    return asyncio.run(main())


@pytest.mark.usefixtures("package")
def test_a_session_gets_the_device_because_the_name_alone_would_be_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = PluginRuntime(takes=1)
    assert providers_on(runtime, monkeypatch, "openvino", "cpu") == ("openvino", "cpu")
    assert runtime.sessions == [None]
    (options,) = runtime.devices
    config = json.loads(options["load_config"])["CPU"]
    assert (config["INFERENCE_NUM_THREADS"], config["ENABLE_CPU_PINNING"]) == ("3", "NO")
    assert config["INFERENCE_PRECISION_HINT"] == "f32"


@pytest.mark.usefixtures("package")
def test_a_graph_of_which_it_takes_nothing_is_not_said_to_run_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert providers_on(PluginRuntime(takes=0), monkeypatch, "openvino", "cpu") == ("cpu",)
    with pytest.raises(StartupError, match="expected one of the providers openvino"):
        providers_on(PluginRuntime(takes=0), monkeypatch, "openvino")


@pytest.mark.usefixtures("package")
def test_the_library_is_loaded_once_and_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = PluginRuntime(takes=1)
    providers_on(runtime, monkeypatch, "cpu")
    assert runtime.registered == [CPU]
    providers_on(runtime, monkeypatch, "openvino")
    providers_on(runtime, monkeypatch, "openvino")
    assert runtime.registered == [CPU, OPENVINO]


@pytest.mark.usefixtures("package")
def test_on_a_processor_that_it_does_not_know_every_model_loads_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = PluginRuntime(takes=1, offers_device=False)
    assert providers_on(runtime, monkeypatch, "openvino", "cpu") == ("cpu",)
    assert providers_on(runtime, monkeypatch, "openvino", "cpu") == ("cpu",)


def test_without_the_package_it_is_a_missing_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(StartupError, match=r"expected one of the providers openvino.*install the matching extra"):
        providers_on(PluginRuntime(takes=1), monkeypatch, "openvino")


@pytest.mark.parametrize(
    ("providers", "expected"),
    [
        (("cpu",), [("cpu",)]),
        (("openvino",), [("openvino",)]),
        (("openvino", "cpu"), [("openvino", "cpu"), ("cpu",)]),
        (("cpu", "openvino"), [("openvino", "cpu"), ("cpu",)]),
        (("cuda", "cpu"), [("cuda", "cpu")]),
        (("cuda", "openvino", "cpu"), [("cuda", "openvino", "cpu")]),
    ],
)
def test_providers_on_the_same_cores_are_rivals_and_a_gpu_is_meant(
    providers: tuple[str, ...], expected: list[tuple[str, ...]]
) -> None:
    assert list(rivals(providers)) == expected


def asked_for(*providers: str) -> ModelsOptions:
    return replace(OPTIONS, load=replace(LOAD, executor=replace(LOAD.executor, providers=providers)))


@pytest.mark.usefixtures("real_device")
@pytest.mark.slow
@pytest.mark.parametrize("faster", ["openvino", "cpu"])
def test_the_provider_that_measures_faster_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, faster: str) -> None:
    measured: list[tuple[str, float]] = []

    def cost_per_row_s(executor: Executor) -> float:
        measured.append((executor.providers[0], executor.costs[1]))
        return 1.0 if executor.providers[0] == faster else 2.0

    monkeypatch.setattr(versions, "_cost_per_row_s", cost_per_row_s)
    write_bundle(tmp_path, "pets", 1, variants={"float32": graph(weights(1))})

    async def test(harness: Harness) -> None:
        model = harness.models.choose("pets")
        assert model.executor.providers[0] == faster
        assert sorted(name for name, _ in measured) == ["cpu", "openvino"]
        assert all(seconds > 0 for _, seconds in measured)
        assert model.note == ""
        rows = pictures(3)
        answers = await model.executor.run({"image": rows})
        np.testing.assert_allclose(answers["probabilities"], probabilities(weights(1), rows), atol=1e-5)

    run(tmp_path, test, asked_for("openvino", "cpu"))


def test_where_openvino_is_not_installed_the_cpu_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[tuple[str, ...]] = []
    load = Executor.load

    async def counted(path: Path, options: ExecutorOptions) -> Executor:
        loads.append(options.providers)
        return await load(path, options)

    monkeypatch.setattr(openvino, "register", lambda _: None)
    monkeypatch.setattr(Executor, "load", counted)
    runtime = executor_module._runtime()
    if OPENVINO in runtime.get_available_providers():  # another test has loaded the library into this process
        monkeypatch.setattr(runtime, "get_available_providers", lambda: [CPU])
    write_bundle(tmp_path, "pets", 1)

    async def test(harness: Harness) -> None:
        assert harness.models.choose("pets").executor.providers == ("cpu",)
        assert loads == [("openvino", "cpu")]

    run(tmp_path, test, asked_for("openvino", "cpu"))


@pytest.mark.usefixtures("real_device")
@pytest.mark.slow
def test_every_batch_size_is_visited_before_requests_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    rested_run = Executor._rested_run

    def counted(self: Executor, inputs: Any) -> float:
        sizes.append(len(inputs["image"]))
        return rested_run(self, inputs)

    monkeypatch.setattr(Executor, "_rested_run", counted)
    (tmp_path / "model.onnx").write_bytes(graph(weights(1)))

    async def main() -> None:
        executor = await Executor.load(
            tmp_path / "model.onnx", ExecutorOptions(providers=("openvino", "cpu"), max_batch_rows=6)
        )
        await executor.warm()
        sizes.clear()
        await executor.visit_sizes()
        assert sizes == [1, 2, 3, 4, 5, 6]
        await executor.close()

    asyncio.run(main())

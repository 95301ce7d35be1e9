import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from structlog.testing import capture_logs

from server.gpu_metrics import open_gpus
from tests.wire.metrics_page import documented


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


def unsupported(_: int) -> int:
    raise NotSupported


def absent() -> None:
    raise NVMLError("Driver Not Loaded")


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """NVML as nvidia-ml-py has it, for a machine with two GPUs."""
    fake = SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        NVML_TEMPERATURE_GPU=0,
        NVML_CLOCK_SM=1,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetName=lambda handle: "H100",
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=25 * (1 + handle)),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(used=1 << 30, total=80 << 30),
        nvmlDeviceGetTemperature=lambda handle, sensor: 61,
        nvmlDeviceGetPowerUsage=lambda handle: 350_000,
        nvmlDeviceGetClockInfo=lambda handle, clock: 1980,
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def read(devices: tuple[int, ...] = ()) -> dict[tuple[str, str], float]:
    source = open_gpus(devices)
    assert source is not None
    return {(s.name, s.labels["device"]): s.value for family in source() for s in family.samples}


def test_each_gpu_is_told_of_in_base_units(nvml: SimpleNamespace) -> None:
    told = read()
    assert told["shoal_gpu_utilization_ratio", "1"] == 0.5
    assert told["shoal_gpu_memory_used_bytes", "0"] == 1 << 30
    assert told["shoal_gpu_memory_total_bytes", "0"] == 80 << 30
    assert told["shoal_gpu_temperature_celsius", "0"] == 61
    assert told["shoal_gpu_power_watts", "0"] == 350
    assert told["shoal_gpu_clock_hertz", "0"] == 1.98e9


def test_only_the_devices_in_use_are_asked(nvml: SimpleNamespace) -> None:
    assert {device for _, device in read((1,))} == {"1"}


def test_what_a_gpu_does_not_tell_is_absent_and_the_rest_is_there(nvml: SimpleNamespace) -> None:
    nvml.nvmlDeviceGetPowerUsage = unsupported
    told = read((0,))
    assert ("shoal_gpu_power_watts", "0") not in told
    assert len(told) == 5


def test_they_are_all_explained(nvml: SimpleNamespace) -> None:
    explained = {row.name: row.labels for row in documented().values() if row.section == "GPU"}
    source = open_gpus(())
    assert source is not None
    assert {family.name: family.samples[0].labels.keys() for family in source()} == explained


@pytest.mark.parametrize("cause", ["not installed", "no driver"])
def test_without_nvml_the_log_says_so_once(cause: str, nvml: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if cause == "not installed":
        monkeypatch.setitem(sys.modules, "pynvml", None)
    nvml.nvmlInit = absent
    with capture_logs() as logs:
        assert open_gpus(()) is None
    (entry,) = logs
    assert entry["event"].startswith("no GPU metrics: ")
    assert cause in entry["event"] or entry["reason"] == "Driver Not Loaded"


def test_nvidias_own_module_has_what_is_asked_of_it(nvml: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    real = pytest.importorskip("pynvml")
    assert [name for name in vars(nvml) if not hasattr(real, name)] == []
    assert issubclass(real.NVMLError_NotSupported, real.NVMLError)

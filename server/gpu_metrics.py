"""What NVIDIA's driver says of the GPUs, by NVML. Needs the `gpu-metrics` extra: `pip install 'shoal[gpu-metrics]'`.

Nothing is imported and nothing asked where the server uses no GPU. Where it does and NVML cannot be had, the log says
so once, and the metrics are absent.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

import structlog
from prometheus_client.core import GaugeMetricFamily, Metric

log = structlog.get_logger()

_MEGA: Final = 1e6


def open_gpus(devices: tuple[int, ...]) -> Callable[[], Iterator[Metric]] | None:
    """A source of metrics for `server.metrics_sampler.Sampler`, or None where there is nothing to ask.

    Args:
        devices: The GPUs' numbers; empty for all.
    """
    try:
        import pynvml  # noqa: PLC0415  an extra
    except ImportError:
        log.info("no GPU metrics: nvidia-ml-py is not installed", install="pip install 'shoal[gpu-metrics]'")
        return None
    try:
        pynvml.nvmlInit()
        numbers = devices or tuple(range(pynvml.nvmlDeviceGetCount()))
        handles = {number: pynvml.nvmlDeviceGetHandleByIndex(number) for number in numbers}
    except pynvml.NVMLError as error:
        log.info("no GPU metrics: NVML does not answer", reason=str(error))
        return None
    return lambda: _read(pynvml, handles)


def _read(nvml: Any, handles: dict[int, Any]) -> Iterator[Metric]:
    for name, text, ask in (
        ("utilization_ratio", "Share of the time in which a kernel ran.", _utilization),
        ("memory_used_bytes", "GPU memory in use, by anybody.", lambda n, h: n.nvmlDeviceGetMemoryInfo(h).used),
        ("memory_total_bytes", "GPU memory.", lambda n, h: n.nvmlDeviceGetMemoryInfo(h).total),
        ("temperature_celsius", "Temperature of the GPU.", _temperature),
        ("power_watts", "Power drawn by the GPU.", lambda n, h: n.nvmlDeviceGetPowerUsage(h) / 1e3),
        ("clock_hertz", "Clock of its multiprocessors.", _clock),
    ):
        family = GaugeMetricFamily(f"shoal_gpu_{name}", text, labels=["device", "gpu"])
        for number, handle in handles.items():
            value = _ask(nvml, ask, handle)
            if value is not None:
                family.add_metric([str(number), str(nvml.nvmlDeviceGetName(handle))], value)
        yield family


def _ask(nvml: Any, ask: Callable[[Any, Any], float], handle: Any) -> float | None:
    try:
        return float(ask(nvml, handle))
    except nvml.NVMLError_NotSupported:  # a virtual GPU tells no power, a MIG slice no utilization
        return None


def _utilization(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetUtilizationRates(handle).gpu) / 100


def _temperature(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))


def _clock(nvml: Any, handle: Any) -> float:
    return float(nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)) * _MEGA

"""OpenVINO beside ONNX Runtime, not in its place: a provider in a library of its own, loaded when it is asked for.

    pip install shoal[openvino] ─▶ onnxruntime, and onnxruntime-ep-openvino with the library
    --providers openvino,cpu ─▶ register once a process ─▶ a device ─▶ sessions on it, measured against the CPU's

Three things that would happen in silence are kept from happening. ONNX Runtime passes over a plug-in that is asked for
by its name alone, so sessions are given its device. Where OpenVINO takes no node of a graph, the CPU computes all of it
under OpenVINO's name, so what it took is counted. And OpenVINO computes float32 in bfloat16 where the processor can,
which is no longer what was verified, so it is told not to.
"""

import functools
import importlib
import importlib.util
import json
import threading
from typing import Any, Final

OPENVINO: Final = "OpenVINOExecutionProvider"
PACKAGE: Final = "onnxruntime_ep_openvino"
_LIBRARY: Final = "shoal.openvino"
_ASSIGNMENT: Final = "session.record_ep_graph_assignment_info"
_ONCE: Final = threading.Lock()  # versions load on threads of their own, and a library is registered only once


def register(ort: Any) -> None:
    """Loads the provider's library into this process, where it is installed and not there yet.

    Args:
        ort: ONNX Runtime.
    """
    with _ONCE:
        if OPENVINO in ort.get_available_providers() or importlib.util.find_spec(PACKAGE) is None:
            return
        _load_library(ort)


@functools.cache  # on a processor of another maker than Intel the library offers no device, and seems not to be there
def _load_library(ort: Any) -> None:
    ort.register_execution_provider_library(_LIBRARY, importlib.import_module(PACKAGE).get_library_path())


def add_device(ort: Any, settings: Any, threads: int) -> bool:
    """Has a session run on OpenVINO's CPU device.

    Args:
        ort: ONNX Runtime.
        settings: The session's options.
        threads: That one batch may use.

    Returns:
        False where the provider is no plug-in but built into this ONNX Runtime, or not there: nothing was changed.
    """
    find = getattr(ort, "get_ep_devices", list)  # there is none before ONNX Runtime 1.23
    # Of its two devices on the CPU, one is AUTO, which would choose again.
    devices = [device for device in find() if device.ep_name == OPENVINO and device.ep_metadata["ov_device"] == "CPU"]
    if not devices:
        return False
    settings.add_session_config_entry(_ASSIGNMENT, "1")
    settings.add_provider_for_devices(devices[:1], {"load_config": json.dumps({"CPU": _config(threads)})})
    return True


def computes(session: Any) -> bool:
    """Whether the provider took any node of the graph.

    Args:
        session: Built after `add_device` said True.
    """
    return any(part.ep_name == OPENVINO and part.get_nodes() for part in session.get_provider_graph_assignment_info())


def _config(threads: int) -> dict[str, str]:
    return {
        "INFERENCE_NUM_THREADS": str(threads),
        "NUM_STREAMS": "1",  # the batcher runs one batch at a time
        "ENABLE_CPU_PINNING": "NO",  # every worker would pin its threads to the same first cores
        "INFERENCE_PRECISION_HINT": "f32",
    }

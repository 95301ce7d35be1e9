"""What tests of several folders ask for."""

import importlib
import importlib.util

import pytest

from server import openvino


@pytest.fixture
def openvino_device() -> None:
    """Skips where OpenVINO cannot run: its package is not installed, or it knows no device on this processor."""
    if importlib.util.find_spec(openvino.PACKAGE) is None:
        pytest.skip("no OpenVINO here: pip install shoal[openvino]")
    ort = importlib.import_module("onnxruntime")
    openvino.register(ort)
    if not openvino.has_device(ort):
        pytest.skip("OpenVINO's plug-in offers no device on this processor: it is made for Intel's")

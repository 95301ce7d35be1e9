"""Weights have 7 bits where sums of int8 products would saturate."""

from pathlib import Path

import numpy as np
import pytest

from export import graph, processor, quantize
from export.quantize import PIXELS_INT8, Recipe
from tests.unit.export.test_export_pixel_groups import SAME, network, pictures

IMAGE = (6, 8, 3)


@pytest.mark.parametrize(
    ("machine", "told", "saturates"),
    [
        ("x86_64", "flags\t\t: fpu avx avx2 fma\n", True),
        ("x86_64", "flags\t\t: fpu avx512f avx512bw\n", True),
        ("x86_64", "flags\t\t: fpu avx2 avx512_vnni\n", False),
        ("x86_64", "flags\t\t: fpu avx2 avx_vnni\n", False),
        ("x86_64", "processor\t: 0\n", False),
        ("aarch64", "flags\t\t: fpu avx2\n", False),
    ],
)
def test_sums_saturate_on_x86_without_vnni(
    machine: str, told: str, *, saturates: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(told)
    monkeypatch.setattr(processor, "_CPUINFO", file)
    monkeypatch.setattr("platform.machine", lambda: machine)
    assert processor.saturates() is saturates


@pytest.mark.parametrize(("saturates", "largest"), [(True, 64), (False, 127)])
def test_no_weight_is_larger_than_the_processor_bears(
    *, saturates: bool, largest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "saturates", lambda: saturates)
    made = quantize.quantize(network(IMAGE, {"filters": 8, **SAME}), pictures(IMAGE, 50), Recipe("minmax", PIXELS_INT8))
    (kernel,) = [one for one in graph.constants(made).values() if one.dtype == np.int8 and one.ndim > 2]
    assert np.abs(kernel.astype(int)).max() == largest

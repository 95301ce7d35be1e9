"""What the machine is good at, and so what `--mixed-precision auto` means on it."""

from pathlib import Path
from typing import Any

import pytest

from training import devices

pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

INTEL = "processor\t: 0\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16\nbugs\t\t: none\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd bf16\n"
OLD = "processor\t: 0\nflags\t\t: fpu sse2 avx2\n"


@pytest.fixture
def cpuinfo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Is read in place of the machine's own."""
    path = tmp_path / "cpuinfo"
    monkeypatch.setattr(devices, "_CPUINFO", path)
    devices.processor_flags.cache_clear()
    monkeypatch.setattr("tensorflow.config.get_visible_devices", lambda _kind: [])
    return path


@pytest.fixture(autouse=True)
def _forget() -> Any:
    yield
    devices.processor_flags.cache_clear()


@pytest.mark.parametrize(("text", "has"), [(INTEL, True), (ARM, True), (OLD, False), ("nothing known", False)])
def test_bfloat16_of_the_processor(cpuinfo: Path, text: str, *, has: bool) -> None:
    cpuinfo.write_text(text)
    assert devices.has_bfloat16() is has


def test_nothing_is_known_where_linux_does_not_tell(cpuinfo: Path) -> None:
    assert not cpuinfo.exists()
    assert devices.processor_flags() == frozenset()


@pytest.mark.parametrize(("capabilities", "has"), [([(8, 0)], True), ([(9, 0), (7, 5)], False)])
def test_bfloat16_of_gpus(
    cpuinfo: Path, monkeypatch: pytest.MonkeyPatch, capabilities: list[tuple[int, int]], *, has: bool
) -> None:
    cpuinfo.write_text(OLD)
    monkeypatch.setattr("tensorflow.config.get_visible_devices", lambda _kind: capabilities)
    monkeypatch.setattr("tensorflow.config.experimental.get_device_details", lambda gpu: {"compute_capability": gpu})
    assert devices.has_bfloat16() is has


@pytest.mark.parametrize(("text", "precision"), [(INTEL, "bfloat16"), (OLD, "float32")])
def test_auto_never_takes_a_bfloat16_that_is_emulated(cpuinfo: Path, text: str, precision: str) -> None:
    from training import plan  # noqa: PLC0415 (imports Keras)
    from training.data.loading import load  # noqa: PLC0415
    from training.settings import TrainSettings  # noqa: PLC0415

    cpuinfo.write_text(text)
    settings = TrainSettings(model="fast")
    assert plan.decide(settings, load(settings)).recipe.precision == precision

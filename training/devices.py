"""What a training runs on: `auto`, `cpu`, or `gpu:0,1` to share each batch among several."""

import re
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path
from typing import Any, Final

import keras

from training import console
from training.errors import TrainingError

_SPEC: Final = re.compile(r"(?P<kind>cpu|gpu)(:(?P<numbers>\d+(,\d+)*))?")

_CPUINFO: Final = Path("/proc/cpuinfo")  # Linux's; elsewhere nothing is known of the processor
_BFLOAT16_FLAGS: Final = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is Arm's
_AMPERE: Final = (8, 0)  # the first of NVIDIA's GPUs with bfloat16


@cache
def processor_flags() -> frozenset[str]:
    """Returns what Linux says that the processor can do, such as `amx_bf16`; nothing on other systems."""
    if not _CPUINFO.exists():
        return frozenset()
    lines = re.findall(r"(?m)^(?:flags|Features)\s*:(.*)$", _CPUINFO.read_text())
    return frozenset(lines[0].split()) if lines else frozenset()


def has_bfloat16() -> bool:
    """Tells whether what is trained on multiplies bfloat16 by itself; where it is emulated, float32 is faster."""
    if keras.backend.backend() != "tensorflow":
        return True  # JAX compiles it to what there is
    import tensorflow as tf  # noqa: PLC0415 (this backend's)

    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return not _BFLOAT16_FLAGS.isdisjoint(processor_flags())
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    return all(detail.get("compute_capability", (0, 0)) >= _AMPERE for detail in details)


def scope(spec: str) -> AbstractContextManager[Any] | None:
    """Prepares the devices; call it before anything else is done with TensorFlow.

    GPUs take memory as they need it, instead of all there is. Several devices each hold a copy of the model and get
    their share of every batch (`tf.distribute.MirroredStrategy`).

    Args:
        spec: As `--devices`.

    Returns:
        Under which to build and compile a model, or None: one device, nothing to do.

    Raises:
        TrainingError: There is no such device, or another training of this process has fixed other ones.
    """
    if keras.backend.backend() != "tensorflow":
        if spec != "auto":
            raise TrainingError(
                f"--devices: expected auto with the backend {keras.backend.backend()}, which chooses by itself;"
                f" received '{spec}'"
            )
        return None
    names = _chosen(spec)
    if len(names) <= 1:
        return None

    import tensorflow as tf  # noqa: PLC0415 (this backend's)

    console.say(f"device {', '.join(names)}: each takes its share of every batch")
    mirrored: AbstractContextManager[Any] = tf.distribute.MirroredStrategy(names).scope()
    return mirrored


def _chosen(spec: str) -> list[str]:
    import tensorflow as tf  # noqa: PLC0415 (the caller knows that it is there)

    found = _SPEC.fullmatch(spec)
    numbers = found["numbers"] if found else None
    kind = found["kind"].upper() if found else "GPU"
    gpus = tf.config.list_physical_devices("GPU")
    chosen = _numbered(spec, gpus, numbers) if kind == "GPU" else []
    _make_visible(chosen)
    if kind == "GPU":
        return [device.name for device in tf.config.list_logical_devices("GPU")]
    devices = tf.config.list_logical_devices("CPU") if numbers else []
    return [device.name for device in _numbered(spec, devices, numbers)]


def _numbered(spec: str, devices: list[Any], numbers: str | None) -> list[Any]:
    if numbers is None:
        if spec == "gpu" and not devices:
            raise TrainingError(
                "--devices: expected a GPU, TensorFlow finds none; use cpu, or install requirements for GPUs"
            )
        return devices
    wanted = [int(number) for number in numbers.split(",")]
    if max(wanted) >= len(devices) or len(set(wanted)) < len(wanted):
        known = ", ".join(device.name for device in devices) or "none"
        raise TrainingError(
            f"--devices: expected different numbers of the devices there are ({known}); received '{spec}'"
        )
    return [devices[number] for number in wanted]


def _make_visible(gpus: list[Any]) -> None:
    import tensorflow as tf  # noqa: PLC0415 (the caller knows that it is there)

    if tf.config.get_visible_devices("GPU") == gpus and not gpus:
        return
    try:
        tf.config.set_visible_devices(gpus, "GPU")
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)  # noqa: FBT003 (TensorFlow's signature)
    except RuntimeError as error:
        if tf.config.get_visible_devices("GPU") != gpus:
            raise TrainingError(
                f"--devices: this process has begun on other devices ({error}); start another"
            ) from error

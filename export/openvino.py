"""How the written variants answer, and how fast, on OpenVINO: measured where its plug-in is installed.

written variants ──ONNX Runtime with OpenVINO──▶ answers on every hold-out row, images/s ──▶ export.json

It refuses nothing. A bundle is for any provider, and a server replays the golden pictures on the one that it takes.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from export import verify
from export.exporter import Exporter
from export.manifest import Written
from server import openvino


def measure_openvino(exporter: Exporter, written: Sequence[Written]) -> dict[str, Any]:
    """Measures each written variant on OpenVINO, one thread, side by side with float32 on ONNX Runtime's own kernels.

    Args:
        exporter: The export.
        written: Its variants.

    Returns:
        Variant → measures, empty where OpenVINO is not installed; a variant that it does not compute is left out.
    """
    sessions = {one.attempt.variant: _open_session(one) for one in written}
    taken = {variant: session for variant, session in sessions.items() if session is not None}
    if not taken:
        return {}
    reference = verify.open_session(exporter.float32_bytes)
    measured = verify.images_per_s({"": reference, **taken}, exporter.holdout.pixels)
    return {variant: _measures(exporter, variant, session, measured) for variant, session in taken.items()}


def _open_session(written: Written) -> Any:
    import onnxruntime as ort  # noqa: PLC0415 - heavy

    openvino.register(ort)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if not openvino.add_device(ort, options, threads=1):
        return None
    session = ort.InferenceSession(written.path, options)
    return session if openvino.computes(session) else None


def _measures(exporter: Exporter, variant: str, session: Any, measured: dict[str, float]) -> dict[str, Any]:
    answers = verify.answer(session, exporter.holdout.pixels)
    comparison = verify.compare(answers, exporter.reference, exporter.holdout.labels)
    speedup = measured[variant] / measured[""]
    speed = speedup * exporter.float32_images_per_s
    reasons = verify.answer_misses(variant, comparison, exporter.gates)
    exporter.say(
        f"  {variant} on OpenVINO: {speedup:.2f} × float32, agreement {comparison.agreement:.2%}:"
        f" {'passes' if not reasons else '; '.join(reasons)}"
    )
    return {"comparison": asdict(comparison), "images_per_s": speed, "speedup": speedup, "reasons": reasons}

"""What schemathesis cannot know from a document: which bytes are pictures, what fits a model, how a body is compressed.

Loaded by schemathesis itself, see `fuzz_http`. Only requests that ought to be right are touched, and not all of them.
"""

import base64
import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Final

import schemathesis
from backports import zstd

from tests.wire.bundles import picture

COMPRESS: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstd.compress,
}
FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
PIXELS: Final = 64  # of the model `grey`
ENOUGH_MS: Final = 5000
EVERY: Final = 4  # one body in so many stays what it was


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """Makes a request one that can be answered, in time, and that is compressed as it says."""
    _allow_time(case)
    if case.meta is not None and case.meta.generation.mode.is_negative:
        return
    size = len(str(case.body))
    fitting = _fit(case.body, case.media_type or "", size) if size % EVERY else case.body
    if fitting is not case.body:  # schemathesis looks anew at what was set, and takes no body at all for a wrong one
        case.body = fitting
    _compress(case)


def _allow_time(case: Any) -> None:
    """A caller who gives a request a microsecond gets 504, and rightly so."""
    if isinstance(case.body, dict) and isinstance(case.body.get("parameters"), dict):
        case.body["parameters"].pop("timeout", None)
    try:
        budget_ms = float((case.headers or {})["X-Latency-Budget-Ms"])
    except (KeyError, ValueError):
        return
    if 0 < budget_ms < ENOUGH_MS:
        case.headers["X-Latency-Budget-Ms"] = str(ENOUGH_MS)


def _fit(body: Any, media_type: str, size: int) -> Any:
    image = picture(size * 50 % 256, form=FORMATS[size % len(FORMATS)])
    if media_type.startswith("image/") or media_type == "application/octet-stream":
        return image
    if not isinstance(body, dict):
        return body
    if "images" in body:
        return body | {"images": [base64.b64encode(image).decode()] * len(body["images"])}
    if "data" in body:
        return body | {"data": [size % 256] * PIXELS}
    if "inputs" in body:
        shape = [size % EVERY, 8, 8, 1]
        values = [size % 256] * (PIXELS * shape[0])
        return body | {"inputs": [{"name": "image", "datatype": "UINT8", "shape": shape, "data": values}]}
    return body


def _compress(case: Any) -> None:
    """Compresses a body of bytes as Content-Encoding says; what is made into bytes later comes without it."""
    codings = [name for name in (case.headers or {}).get("Content-Encoding", "").replace(" ", "").split(",") if name]
    if not codings or not set(codings) <= COMPRESS.keys():
        return
    if not isinstance(case.body, bytes):
        del case.headers["Content-Encoding"]
        return
    for coding in codings:
        case.body = COMPRESS[coding](case.body)

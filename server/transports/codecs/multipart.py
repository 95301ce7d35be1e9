"""multipart/form-data (RFC 7578) whose body is in memory already: parts in, nothing copied twice.

A stream reader scans a body line by line; here it is complete and bounded, so one `split` at the boundary does.
"""

import re
from typing import Final, NamedTuple

from server.errors import InvalidInput

_PARAMETER: Final = re.compile(rb';\s*(name|filename)\*?=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)
_BOUNDARY: Final = re.compile(r'boundary=(?:"([^"]{1,70})"|([^;\s]{1,70}))', re.IGNORECASE)


class Part(NamedTuple):
    """One field of a form.

    Args:
        name: The field's name.
        filename: The file's name, or None for a field that is no file.
        content: Its bytes.
    """

    name: str
    filename: str | None
    content: bytes


def parse_form(body: bytes, content_type: str) -> list[Part]:
    """Splits a form into its fields.

    Args:
        body: The whole body.
        content_type: The header's value, with its boundary.

    Raises:
        InvalidInput: The body is no form with that boundary, or a part is not told as its bytes are.
    """
    found = _BOUNDARY.search(content_type)
    if found is None:
        raise InvalidInput(f"expected a boundary in the Content-Type of a form, received {content_type!r}")
    # Every boundary but the first follows a line break, which belongs to the boundary and not to the part before it.
    pieces = (b"\r\n" + body).split(b"\r\n--" + (found[1] or found[2]).encode("latin-1", "replace"))
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):  # noqa: PLR2004  preamble, one part, end
        raise InvalidInput("expected a form with a file and its boundary at the end, received a body cut short")
    return [_parse_part(piece) for piece in pieces[1:-1]]


def _parse_part(piece: bytes) -> Part:
    # A part begins behind the rest of its boundary's line, which may hold padding.
    head, separator, content = piece.partition(b"\r\n\r\n")
    if not separator:
        raise InvalidInput("expected an empty line between a part's headers and its content, received none")
    name, filename = "", None
    for line in head.split(b"\r\n"):
        key, _, value = line.partition(b":")
        key = key.strip().lower()
        if key == b"content-disposition":
            parameters = {found[1].lower(): found[2] or found[3] or b"" for found in _PARAMETER.finditer(value)}
            name = parameters.get(b"name", b"").decode("utf-8", "replace")
            filename = parameters[b"filename"].decode("utf-8", "replace") if b"filename" in parameters else None
        elif key == b"content-transfer-encoding" and value.strip().lower() not in (b"binary", b"8bit", b"7bit"):
            raise InvalidInput(f"expected a file's own bytes, received them as {value.strip()!r}")
    return Part(name, filename, content)

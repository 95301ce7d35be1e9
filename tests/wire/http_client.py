"""A plain HTTP client of one connection, so that tests see exactly what is on the wire."""

import http.client
import json
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Http:
    """One connection to a server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def predict(self, body: Any, content_type: str = "", path: str = "/predict", **headers: str) -> Answer:
        """Posts to /predict: a dictionary as JSON, bytes as they are, anything iterable in chunks."""
        if isinstance(body, dict):
            body, content_type = json.dumps(body).encode(), content_type or "application/json"
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("POST", path, body, sent | ({"Content-Type": content_type} if content_type else {}))

    def ask(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            self._connection.close()


def form(*files: tuple[str, str | None, bytes]) -> tuple[bytes, str]:
    """A multipart body of (field, file name, content), and its Content-Type."""
    boundary = "----wire-test"
    parts = []
    for name, filename, content in files:
        about = f'form-data; name="{name}"' + (f'; filename="{filename}"' if filename is not None else "")
        parts.append(f"--{boundary}\r\nContent-Disposition: {about}\r\n\r\n".encode() + content + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"

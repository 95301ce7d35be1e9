"""`python -m server.healthcheck`: asks the server of this container whether it is ready, by its own variables.

Exit code 0 when it is, else 1 and one line that says what came instead. It imports the standard library alone, because
an orchestrator runs it every few seconds beside the server.
"""

import http.client
import os
import ssl
import sys
from collections.abc import Mapping
from typing import Final

READY: Final = "/health/ready"
LIVE: Final = "/health/live"
TIMEOUT_S: Final = 4.0


def main() -> int:
    """Asks once.

    Returns:
        0 when it is ready, else 1.
    """
    try:
        status, body = ask(os.environ)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"not ready: {error}", file=sys.stderr)  # noqa: T201  the orchestrator keeps it
        return 1
    if status == http.HTTPStatus.OK:
        return 0
    print(f"not ready: the server answered {status}: {body.decode(errors='replace')}", file=sys.stderr)  # noqa: T201
    return 1


def ask(variables: Mapping[str, str]) -> tuple[int, bytes]:
    """Asks the server that these variables describe.

    Args:
        variables: SHOAL_HTTP_PORT, SHOAL_METRICS_PORT, SHOAL_TLS_CERT and SHOAL_TLS_CLIENT_CA, read as the server does.

    Returns:
        The HTTP status and the beginning of the body.

    Raises:
        OSError: Nobody answers there.
        ValueError: A port is no number.
    """
    connection, path = _way(variables)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(200)
    finally:
        connection.close()


def _way(variables: Mapping[str, str]) -> tuple[http.client.HTTPConnection, str]:
    port = int(variables.get("SHOAL_HTTP_PORT") or 8000)
    metrics_port = int(variables.get("SHOAL_METRICS_PORT") or 0)
    if not variables.get("SHOAL_TLS_CERT"):
        return http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S), READY
    if variables.get("SHOAL_TLS_CLIENT_CA") and metrics_port:
        # A container holds no client's certificate, and the port for metrics asks for none.
        return http.client.HTTPConnection("127.0.0.1", metrics_port, timeout=TIMEOUT_S), LIVE
    # The certificate names the public host, not this loopback address, and nothing secret is sent.
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=trusting), READY


if __name__ == "__main__":
    raise SystemExit(main())

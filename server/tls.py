"""Certificates: one pair of files for both ports, and new connections use new files without a restart.

tls_cert, tls_key, tls_client_ca ──changed?──▶ a context made anew ──▶ the connections from then on
                                      └─ do not fit together ──▶ said in the log, the old ones stay
"""

import ssl
from dataclasses import dataclass
from pathlib import Path

from server.errors import StartupError
from server.secret_files import WatchedFiles, read_secret
from server.settings import Settings


@dataclass(frozen=True, eq=False, slots=True)
class Certificates:
    """What the files hold.

    Args:
        context: For one side of Python's own TLS.
        chain: The server's certificates, as PEM.
        key: Its private key, as PEM.
        client_ca: Who has to have signed a client's certificate, as PEM; None where clients need none.
        until: When the server's certificate ends.
    """

    context: ssl.SSLContext
    chain: bytes
    key: bytes
    client_ca: bytes | None
    until: str


class Tls:
    """The certificates in force.

    Args:
        cert: The server's certificate, and those between it and the root, as PEM.
        key: Its private key, as PEM, not encrypted.
        client_ca: Who has to have signed a client's certificate; None where clients need none.

    Raises:
        StartupError: The files cannot be read, or do not fit together.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        paths = [cert, key, *([client_ca] if client_ca is not None else [])]
        self._files = WatchedFiles(paths, lambda: _read(cert, key, client_ca), "certificates")

    @property
    def current(self) -> Certificates:
        """What new connections use."""
        return self._files.value

    async def refresh(self) -> None:
        """Reads the files again where one has changed."""
        self._files.refresh()


def open_tls(settings: Settings) -> Tls | None:
    """The certificates that the settings name, or None where they name none.

    Args:
        settings: Of the server.

    Raises:
        StartupError: Some are missing, cannot be read, or do not fit together.
    """
    cert, key, client_ca = settings.tls_cert, settings.tls_key, settings.tls_client_ca
    if cert is not None and key is not None:
        return Tls(cert, key, client_ca)
    if cert is not None or key is not None or client_ca is not None:
        missing = "--tls-key" if cert is not None else "--tls-cert"
        raise StartupError(f"{missing}: expected a PEM file beside the other settings of TLS, received none")
    return None


def _read(cert: Path, key: Path, client_ca: Path | None) -> Certificates:
    from cryptography import x509  # noqa: PLC0415  megabytes that a server without TLS can do without

    chain, private = read_secret(cert, "--tls-cert"), read_secret(key, "--tls-key")
    authority = read_secret(client_ca, "--tls-client-ca") if client_ca is not None else None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password OpenSSL would ask whoever sits at the terminal for it.
        context.load_cert_chain(cert, key, password=lambda: "")
        until = x509.load_pem_x509_certificate(chain).not_valid_after_utc.isoformat()
    except (ssl.SSLError, ValueError) as error:
        raise StartupError(
            f"--tls-cert, --tls-key: expected a PEM certificate and its own private key, not encrypted, received {cert}"
            f" and {key}: {_reason(error)}"
        ) from error
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (ssl.SSLError, ValueError) as error:
            raise StartupError(
                f"--tls-client-ca: expected PEM certificates, received {client_ca}: {_reason(error)}"
            ) from error
        context.verify_mode = ssl.CERT_REQUIRED
    return Certificates(context, chain, private, authority, until)


def _reason(error: Exception) -> str:
    return (error.reason or str(error)) if isinstance(error, ssl.SSLError) else str(error)

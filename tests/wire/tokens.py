"""Tokens and keys of an issuer that tests play, and what a server needs to check them."""

import itertools
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER: Final = "https://issuer.example"
AUDIENCE: Final = "shoal-test"
SECRET: Final = "0123456789abcdef0123456789abcdef-hs256"
RSA: Final = "RS256"
_numbers: Final = itertools.count()
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def make_private(algorithm: str) -> PrivateKey:
    if algorithm == RSA:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1()) if algorithm == "ES256" else ed25519.Ed25519PrivateKey.generate()


def public_jwk(key: PrivateKey, algorithm: str, key_id: str | None) -> dict[str, Any]:
    algorithms = jwt.get_algorithm_by_name(algorithm)
    document: dict[str, Any] = json.loads(algorithms.to_jwk(key.public_key()))
    document.pop("key_ops", None)
    return document | ({"kid": key_id} if key_id is not None else {})


def claims(**changes: Any) -> dict[str, Any]:
    """Those of a token that is valid now; a change to None takes one away."""
    now_s = int(time.time())
    told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now_s, "exp": now_s + 300, "scope": "predict"}
    told["jti"] = f"made-{next(_numbers)}"
    return {name: value for name, value in (told | changes).items() if value is not None}


def shared_token(secret: str = SECRET, **changes: Any) -> str:
    """One by HS256."""
    return jwt.encode(claims(**changes), secret, "HS256")


@dataclass
class Issuer:
    """Signs tokens, and publishes the keys to check them by."""

    keys: dict[str, tuple[str, PrivateKey]] = field(default_factory=dict)  # by id: algorithm, key
    asked: int = 0
    url: str = ""

    def add(self, key_id: str, algorithm: str) -> None:
        self.keys[key_id] = algorithm, make_private(algorithm)

    def sign(self, key_id: str, **changes: Any) -> str:
        algorithm, key = self.keys[key_id]
        return jwt.encode(claims(**changes), key, algorithm, headers={"kid": key_id})

    @property
    def document(self) -> bytes:
        published = [public_jwk(key, algorithm, key_id) for key_id, (algorithm, key) in self.keys.items()]
        return json.dumps({"keys": published}).encode()


@contextmanager
def serve_issuer() -> Iterator[Issuer]:
    """An issuer with one key of each kind: `rsa`, `ec` and `ed`."""
    issuer = Issuer()
    for key_id, algorithm in (("rsa", RSA), ("ec", "ES256"), ("ed", "EdDSA")):
        issuer.add(key_id, algorithm)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked += 1
            body = issuer.document
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        issuer.url = f"http://127.0.0.1:{httpd.server_address[1]}/jwks.json"
        thread = threading.Thread(target=httpd.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield issuer
        finally:
            httpd.shutdown()
            thread.join()

"""`python -m benchmarks.smoke URL`: is the server that was just deployed fit to stay? Exit code 0 if it is, 1 if not.

    ready? ─▶ which model? ─▶ its own example pictures, one by one ─▶ a steady rate ─▶ are errors and p99 in bounds?

It needs the standard library alone, so that any machine can run it. With `--grpc` it also needs grpcio and `protos`.
"""

import argparse
import http.client
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.steady_rate import TIMEOUT_S, NotFitError, Target, watch

N_EXAMPLES: Final = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs all checks.

    Args:
        arguments: The command line; None for this process's own.

    Returns:
        0 when the server is fit, 1 when it is not.
    """
    options = _parser().parse_args(arguments)
    try:
        token = options.token_file.read_text().strip() if options.token_file else ""
        target = Target(options.url.rstrip("/"), token, options.ca)
        check(target, options)
    except (NotFitError, OSError, http.client.HTTPException) as error:
        print(f"error: {options.url}: {error}", file=sys.stderr)
        return 1
    print("fit")
    return 0


def check(target: Target, options: argparse.Namespace) -> None:
    """Everything in turn.

    Raises:
        NotFitError: The first thing that is not as it should be.
    """
    wait_ready(target, options.wait_s)
    version, pictures = check_model(target, options.version)
    for picture in pictures:
        check_answer(target, picture, version)
    print(f"version {version} answers its own {len(pictures)} example pictures")
    if options.grpc:
        check_grpc(options.grpc, target, pictures[0], version)
        print("and by gRPC")
    watched = watch(target, pictures, options.rate, options.seconds)
    print(
        f"{len(watched.latencies_ms)} answers in {options.seconds:g} s, p99 {watched.p99_ms:.1f} ms,"
        f" {watched.error_rate:.2%} failed {watched.failures[:1] or ''}"
    )
    if watched.error_rate > options.max_error_rate:
        raise NotFitError(f"expected at most {options.max_error_rate:.2%} failures, {watched.error_rate:.2%} failed")
    if watched.p99_ms > options.max_p99_ms:
        raise NotFitError(f"expected a p99 of at most {options.max_p99_ms:g} ms, it was {watched.p99_ms:.1f} ms")


def wait_ready(target: Target, limit_s: float) -> None:
    """Waits until the server calls itself ready.

    Raises:
        NotFitError: It did not in time.
    """
    end_s, last = time.monotonic() + limit_s, ""
    while True:
        connection = target.connect()
        try:
            status, body = target.ask(connection, "GET", "/health/ready")
            last = f"{status} {body[:200].decode(errors='replace')}"
            if status == http.HTTPStatus.OK:
                return
        except OSError as error:
            last = str(error)
        finally:
            connection.close()
        if time.monotonic() > end_s:
            raise NotFitError(f"expected it to be ready within {limit_s:g} s, it answered: {last}")
        time.sleep(0.5)


def check_model(target: Target, wanted: int | None) -> tuple[int, list[bytes]]:
    """Which version answers, and its example pictures.

    Raises:
        NotFitError: It is another than is wanted, or it has no examples.
    """
    connection = target.connect()
    info = _json(target.ask(connection, "GET", "/model-info"), "/model-info")
    version = info["version"]
    if wanted is not None and version != wanted:
        raise NotFitError(f"expected version {wanted} to answer, it is version {version}")
    answers = [target.ask(connection, "GET", f"/example?number={number}") for number in range(N_EXAMPLES)]
    connection.close()
    pictures = [body for status, body in answers if status == http.HTTPStatus.OK]
    if not pictures:
        raise NotFitError(f"expected pictures from /example, received {answers[0][0]}: {answers[0][1][:200]!r}")
    return version, pictures


def check_answer(target: Target, picture: bytes, version: int) -> None:
    """Asks about one picture.

    Raises:
        NotFitError: The answer is of another version, or its probabilities are none.
    """
    connection = target.connect()
    answer = _json(target.ask(connection, "POST", "/predict", picture), "/predict")
    connection.close()
    total = sum(answer["probabilities"][0])
    if answer["version"] != version or abs(total - 1) > 0.01:  # noqa: PLR2004  int8 rounds
        raise NotFitError(f"expected version {version} and probabilities that add up to 1, received {answer}")


def check_grpc(address: str, target: Target, picture: bytes, version: int) -> None:
    """The same question by gRPC, with TLS where the URL has it.

    Raises:
        NotFitError: It fails, or another version answers.
    """
    import grpc  # noqa: PLC0415  only who asks for it has it

    from protos import classifier_pb2, classifier_pb2_grpc  # noqa: PLC0415

    trusted = grpc.ssl_channel_credentials(target.ca.read_bytes() if target.ca else None)
    tls = urlsplit(target.url).scheme == "https"
    metadata = (("authorization", f"Bearer {target.token}"),) if target.token else ()
    request = classifier_pb2.ClassifyRequest(encoded=classifier_pb2.EncodedImages(images=[picture]))
    with grpc.secure_channel(address, trusted) if tls else grpc.insecure_channel(address) as channel:
        try:
            stub = classifier_pb2_grpc.ClassifierStub(channel)
            answer = stub.Classify(request, timeout=TIMEOUT_S, metadata=metadata, wait_for_ready=True)
        except grpc.RpcError as error:
            raise NotFitError(f"expected an answer by gRPC from {address}, received {error}") from error
    if answer.version != version:
        raise NotFitError(f"expected version {version} by gRPC too, received version {answer.version}")


def _json(answer: tuple[int, bytes], path: str) -> dict[str, Any]:
    status, body = answer
    if status != http.HTTPStatus.OK:
        raise NotFitError(f"expected 200 from {path}, received {status}: {body[:200].decode(errors='replace')}")
    found: dict[str, Any] = json.loads(body)
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoke", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="http://host:port or https://host:port")
    parser.add_argument("--grpc", default="", metavar="HOST:PORT", help="ask by gRPC too")
    parser.add_argument("--token-file", type=Path, help="file with a token for Authorization: Bearer")
    parser.add_argument("--ca", type=Path, help="certificate to trust, where it is self-signed")
    parser.add_argument("--version", type=int, help="the version that has to answer (default: any)")
    parser.add_argument("--wait-s", type=float, default=60, help="how long it may take to become ready (default: 60)")
    parser.add_argument("--rate", type=float, default=20, help="requests a second while it is watched (default: 20)")
    parser.add_argument("--seconds", type=float, default=15, help="how long it is watched (default: 15)")
    parser.add_argument("--max-error-rate", type=float, default=0.001, help="share that may fail (default: 0.001)")
    parser.add_argument("--max-p99-ms", type=float, default=200, help="slowest p99 that is fit (default: 200)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())

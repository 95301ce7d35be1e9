"""`shoal-classify`: files and folders to a table of classes.

paths ─▶ pictures ─▶ client.classify_many ─▶ Writer (stdout or a file), with a progress bar on stderr
"""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NoReturn, TextIO

import grpc

from shoal_client.errors import ShoalError
from shoal_client.grpc_sync import GrpcClient
from shoal_client.http_sync import HttpClient
from shoal_client.progress import Progress
from shoal_client.settings import ClientSettings
from shoal_client.tables import make_writer

DEFAULT_SERVER: Final = "grpc://127.0.0.1:8001"
SUFFIXES: Final = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
SOME_FAILED: Final = 1
USER_ERROR: Final = 2
INTERRUPTED: Final = 130
CHECK_WITHIN_S: Final = 5.0

EXAMPLES: Final = """\
examples:
  shoal-classify cat.jpg
  shoal-classify photos/ --output photos.csv               # every picture in the folder and below it
  shoal-classify photos/ --format jsonl --top-k 3
  shoal-classify *.png --server http://127.0.0.1:8000      # HTTP where gRPC does not get through
  shoal-classify scans/ --model digits --version 2
  find . -newer last-run -name '*.jpg' | shoal-classify -  # one path on each line

exit codes: 0 every picture has an answer, 1 some have an error in their row, 2 wrong arguments or no server
SHOAL_TOKEN, where it is set, is sent as a bearer token; SHOAL_SERVER is the default of --server.
"""


class UsageError(Exception):
    """What the user can put right, in one line."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see shoal-classify --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: The command line without the program's name; None takes it from the process.

    Returns:
        The exit code: 0, 1 where some pictures failed, 2 for errors of the user, 130 after Ctrl-C.
    """
    try:
        return _run(_build_parser().parse_args(arguments))
    except (UsageError, ShoalError) as error:
        _say(f"shoal-classify: {' '.join(str(error).split())}")
        return USER_ERROR
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED


def _build_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="shoal-classify",
        description="Classifies picture files with a running Shoal server.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files, folders, or - for paths on standard input")
    parser.add_argument(
        "--server",
        default=os.environ.get("SHOAL_SERVER", DEFAULT_SERVER),
        help="grpc://host:port, grpcs:// (TLS), http:// or https:// [%(default)s]",
    )
    parser.add_argument("--model", default="", help="the model [the server's default]")
    parser.add_argument("--version", type=_positive, help="its version [the one the server chooses]")
    parser.add_argument("--top-k", type=_positive, default=1, metavar="K", help="classes for each picture [1]")
    parser.add_argument("--format", choices=("csv", "json", "jsonl"), default="csv", help="[csv]")
    parser.add_argument("--output", type=Path, metavar="FILE", help="where to write [standard output]")
    parser.add_argument("--window", type=_positive, metavar="N", help="pictures in flight at most [256; HTTP 16]")
    parser.add_argument("--timeout-s", type=_seconds, metavar="S", help="seconds for the whole [no limit]")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary")
    return parser


def _run(options: argparse.Namespace) -> int:
    paths = list(find_pictures(options.paths))
    if not paths:
        raise UsageError(f"expected pictures ({', '.join(sorted(SUFFIXES))}), found none in {', '.join(options.paths)}")
    with connect(options.server) as client:
        # A wrong address, model or token is told before an output file is touched.
        client.describe(options.model, options.version, timeout_s=CHECK_WITHIN_S)
        with _open_output(options.output) as stream:
            failed = _classify(client, paths, options, stream)
    if not options.quiet:
        _say(f"{len(paths) - failed:,} of {len(paths):,} pictures classified" + (f", {failed:,} failed" * bool(failed)))
    return SOME_FAILED if failed else 0


def _classify(
    client: GrpcClient | HttpClient, paths: Sequence[Path], options: argparse.Namespace, stream: TextIO
) -> int:
    window = {"window": options.window} if options.window else {}
    results = client.classify_many(
        paths,
        model=options.model,
        version=options.version,
        top_k=options.top_k,
        timeout_s=options.timeout_s,
        return_errors=True,
        **window,
    )
    writer, failed = make_writer(options.format, stream), 0
    with contextlib.ExitStack() as stack:
        progress = None if options.quiet else Progress(len(paths), sys.stderr)
        if progress is not None:
            stack.callback(progress.finish)
        for path, result in zip(paths, results, strict=True):
            writer.write(path, result)
            failed += isinstance(result, ShoalError)
            if progress is not None:
                progress.advance(failed=isinstance(result, ShoalError))
    writer.finish()
    return failed


def find_pictures(names: Sequence[str]) -> Iterator[Path]:
    """Finds what is to be classified.

    Args:
        names: Files, which are taken whatever their names are; folders, of which all pictures by suffix are taken, in
            the order of their names; "-" for such names on standard input.

    Yields:
        The files.

    Raises:
        UsageError: There is nothing of that name.
    """
    for name in names:
        path = Path(name)
        if name == "-":
            yield from find_pictures([line for line in sys.stdin.read().splitlines() if line])
        elif path.is_dir():
            found = (file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
            yield from sorted(found)
        elif path.is_file():
            yield path
        else:
            raise UsageError(f"expected a file or a folder, there is no {name}")


def connect(server: str) -> GrpcClient | HttpClient:
    """Makes the client for an address.

    Args:
        server: `grpc://host:port`, `grpcs://host:port` or an http(s) URL; without a scheme it is gRPC.

    Raises:
        UsageError: It has another scheme, or no host.
    """
    settings = ClientSettings(token=os.environ.get("SHOAL_TOKEN", ""))
    scheme, separator, rest = server.partition("://")
    if not separator:
        scheme, rest = "grpc", server
    if not rest:
        raise UsageError(f"expected --server as grpc://host:port or http://host:port, received {server!r}")
    if scheme in {"http", "https"}:
        return HttpClient(server, settings=settings)
    if scheme == "grpc":
        return GrpcClient(rest, settings=settings)
    if scheme == "grpcs":
        return GrpcClient(rest, credentials=grpc.ssl_channel_credentials(), settings=settings)
    raise UsageError(f"expected grpc, grpcs, http or https in --server, received {scheme!r}")


@contextlib.contextmanager
def _open_output(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        stream = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"expected an --output that can be written: {path}: {error.strerror}") from error
    with stream:
        yield stream


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, received {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, received {text!r}")
    return seconds


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())

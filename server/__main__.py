"""`python -m server`: reads the settings, says what to open, and serves until a signal."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from server.cli import read_settings
from server.cores import available_cores
from server.errors import StartupError
from server.settings import Settings

USER_ERROR = 2
INTERRUPTED = 130  # as a shell tells of a process that Ctrl-C ended


def main(arguments: list[str] | None = None) -> int:
    """Runs the server.

    Args:
        arguments: The command line without the program's name; None for this process's own.

    Returns:
        The exit code: 0 after a drain, 2 when it cannot start as asked.
    """
    given = sys.argv[1:] if arguments is None else arguments
    try:
        if given[:1] == ["keys"]:
            from server.auth_command import run_keys  # noqa: PLC0415  no server needs it

            run_keys(given[1:])
        elif given[:1] == ["report"]:
            from server.report import run_report  # noqa: PLC0415  likewise

            run_report(given[1:])
        else:
            _serve(read_settings(given))
    except StartupError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:  # before it was ready; later a signal drains
        return INTERRUPTED
    return 0


def _serve(settings: Settings) -> None:
    # Imported where it is used: ONNX Runtime and gRPC take seconds to import on a busy machine. Neither --help nor the
    # supervisor, which holds no model, should pay for them.
    from server.logs import set_up_logs  # noqa: PLC0415
    from server.memory import limit_arenas  # noqa: PLC0415

    limit_arenas()
    set_up_logs(settings.log_level, settings.log_format)
    workers = settings.workers or available_cores()
    if workers > 1:
        _serve_with_several(settings, workers)
    else:
        from server.app import serve  # noqa: PLC0415

        _run(serve(settings))


def _serve_with_several(settings: Settings, workers: int) -> None:
    from server.nursery import WORKER_IMPORTS, Nursery, inherited_end, nurse  # noqa: PLC0415

    end = inherited_end()
    side = Nursery.fork() if end is None else end
    if isinstance(side, Nursery):
        from server.supervisor import supervise  # noqa: PLC0415

        _run(supervise(settings, workers, side))
        return
    # Those of `server.security` that only some servers need.
    asks = settings.api_keys or settings.jwt_key_file or settings.jwks
    birth = nurse(side, (*WORKER_IMPORTS, "server.auth_jwks") if asks else WORKER_IMPORTS)
    if birth is not None:
        from server.worker import work  # noqa: PLC0415

        _run(work(settings.of_slot(birth.slot), birth, workers))


def _run(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop  # noqa: PLC0415  absent on Windows
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    raise SystemExit(main())

"""Entry point of `python -m export`: one line on the error stream for whatever cannot be done, and the exit code."""

import sys
from collections.abc import Sequence
from typing import IO, Any, Final

from pydantic import ValidationError

from export import quiet
from export.cli import parser
from export.errors import ExportError, GateFailed

BAD_INPUT: Final = 2
GATE_FAILED: Final = 3
INTERRUPTED: Final = 130  # 128 + SIGINT, as shells report it


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: Of the command line, without the program's name.

    Returns:
        The exit code.
    """
    options = parser().parse_args(arguments)
    quiet.prepare_environment()
    try:
        with quiet.side_file(verbose=options.verbose) as errors:
            return _run(options, errors)
    except BrokenPipeError:
        return 1


def _run(options: Any, errors: IO[str]) -> int:
    try:
        exit_code: int = options.command(options)
    except GateFailed as error:
        return _failed(errors, str(error), GATE_FAILED)
    except ExportError as error:
        return _failed(errors, str(error), BAD_INPUT)
    except ValidationError as error:
        first = error.errors()[0]
        said = f"{'.'.join(map(str, first['loc']))}: {first['msg']}, received {first['input']!r}"
        return _failed(errors, said, BAD_INPUT)
    except KeyboardInterrupt:
        return _failed(errors, "interrupted; nothing half-written was kept", INTERRUPTED)
    except OSError as error:
        if error.filename is None and error.strerror is None:
            raise
        return _failed(errors, f"{error.filename or 'write'}: {error.strerror}", BAD_INPUT)
    return exit_code


def _failed(errors: IO[str], message: str, exit_code: int) -> int:
    print(f"error: {message}", file=errors)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())

"""What a person sees while training works: lines always, a progress bar where there is a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_CONSOLE = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def say(line: str) -> None:
    """Prints one line on standard output, above the progress bar if one is shown."""
    _CONSOLE.print(line)


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Shows a bar on a terminal, and nothing elsewhere.

    Args:
        description: What is being done.
        total: Units of work.

    Yields:
        A function to call with the number of units just done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_CONSOLE, transient=True, disable=not _CONSOLE.is_terminal) as bar:
        task = bar.add_task(description, total=total)
        yield lambda units: bar.advance(task, units)

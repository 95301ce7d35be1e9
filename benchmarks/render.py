"""`python -m benchmarks render`: the tables of docs/performance.md, written from benchmarks/results.

    <!-- results: limit -->  ┐
    … a table …              ├─ written anew from limit.json; everything else in the document is left alone
    <!-- end of results -->  ┘

A test holds the document to the results, so a figure in it can only come from a measurement.
"""

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Final

from benchmarks.render_tables import TABLES, Result, provenance

DOCUMENT: Final = Path("docs/performance.md")
RESULTS: Final = Path("benchmarks/results")
_BLOCK: Final = re.compile(r"(<!-- results: ([a-z0-9-]+) -->\n).*?(<!-- end of results -->)", re.DOTALL)
EXAMPLES: Final = """\
examples:
  python -m benchmarks render            after new results
  python -m benchmarks render --check    is the document what the results say? (exit code 1 if not; writes nothing)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the document differs")


def run_command(arguments: argparse.Namespace) -> int:
    """Writes or checks the document; see the module."""
    if not arguments.check:
        write(arguments.document, arguments.results)
        return 0
    text = arguments.document.read_text()
    if rendered(text, arguments.results) == text:
        return 0
    print(
        f"{arguments.document} is not what {arguments.results} says: run python -m benchmarks render", file=sys.stderr
    )
    return 1


def write(document: Path, results: Path) -> None:
    """Writes every table of a document anew.

    Args:
        document: The Markdown file.
        results: Folder of JSON files.
    """
    document.write_text(rendered(document.read_text(), results))


def rendered(text: str, results: Path) -> str:
    """A document with its tables as the results have them.

    Args:
        text: The document.
        results: Folder of JSON files.

    Raises:
        ValueError: A marker names a result that there is no table for.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}{_block(found[2], results)}\n{found[3]}", text)


def _block(name: str, results: Path) -> str:
    if name not in TABLES:
        raise ValueError(f"<!-- results: {name} -->: expected one of {', '.join(sorted(TABLES))}")
    command, table = TABLES[name]
    path = results / f"{name}.json"
    if not path.exists():
        return f"Not measured yet: `python -m benchmarks {command}`."
    result: Result = json.loads(path.read_text())
    return "\n".join([*table(result), "", provenance(result)])

"""`python -m benchmarks render`: the tables of docs/performance.md and README.md, written from benchmarks/results.

    <!-- results: limit -->  ┐
    … a table …              ├─ written anew from limit.json; everything else in the document is left alone
    <!-- end of results -->  ┘

`<!-- results: peers short -->` is a table of the few figures that README.md has room for. A test holds the documents to
the results, so a figure in them can only come from a measurement.
"""

import argparse
import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.render_tables import SHORT, TABLES, Result, provenance

DOCUMENTS: Final = (Path("docs/performance.md"), Path("README.md"))
RESULTS: Final = Path("benchmarks/results")
_BLOCK: Final = re.compile(r"(<!-- results: ([a-z0-9-]+(?: short)?) -->\n).*?(<!-- end of results -->)", re.DOTALL)
EXAMPLES: Final = """\
examples:
  python -m benchmarks render            after new results
  python -m benchmarks render --check    are the documents what the results say? (exit code 1 if not; writes nothing)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's flags."""
    usual = ", ".join(map(str, DOCUMENTS))
    parser.add_argument("--document", type=Path, nargs="+", default=DOCUMENTS, help=f"one or more (default: {usual})")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the document differs")


def run_command(arguments: argparse.Namespace) -> int:
    """Writes or checks the documents; see the module."""
    if not arguments.check:
        write(arguments.document, arguments.results)
        return 0
    texts = {document: document.read_text() for document in arguments.document}
    stale = [document for document, text in texts.items() if rendered(text, arguments.results) != text]
    for document in stale:
        print(f"{document} is not what {arguments.results} says: run python -m benchmarks render", file=sys.stderr)
    return int(bool(stale))


def write(documents: Sequence[Path], results: Path) -> None:
    """Writes every table of documents anew.

    Args:
        documents: Markdown files.
        results: Folder of JSON files.
    """
    for document in documents:
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
    source = name.removesuffix(" short")
    known = TABLES if source == name else SHORT
    if source not in known:
        raise ValueError(f"<!-- results: {name} -->: expected one of {', '.join(sorted(known))}")
    command, table = known[source]
    path = results / f"{source}.json"
    if not path.exists():
        return f"Not measured yet: `python -m benchmarks {command}`."
    result: Result = json.loads(path.read_text())
    return "\n".join([*table(result), "", provenance(result)])

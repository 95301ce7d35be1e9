"""The command line of `python -m export`: one parser, to which each module of `export.commands` adds its own."""

import argparse
from typing import Final

from export.commands import compare, copy, cost, create, gc, keygen, promote, pull, rollback, show, sign
from export.commands import list as list_command

COMMANDS: Final = (create, list_command, show, cost, compare, promote, rollback, gc, keygen, sign, copy, pull)
_EPILOG: Final = """\
examples:
  python -m export create --name digits                     the latest run of runs/digits becomes the next version
  python -m export list                                     every bundle in models/
  python -m export compare digits 1 2                       two versions side by side
  python -m export promote digits 2 --steps 10,50,100       a tenth of the requests, then half, then all
  python -m export rollback digits                          what was before
  python -m export gc digits --keep 3                       old versions go
  python -m export COMMAND --help                           a command's flags

exit codes: 0 done · 2 bad input · 3 float32 missed its gate, nothing was written · 130 Ctrl-C
"""


def parser() -> argparse.ArgumentParser:
    """Builds the parser."""
    top = argparse.ArgumentParser(
        prog="python -m export",
        description="Trained runs to verified bundles, and what becomes of them.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return top

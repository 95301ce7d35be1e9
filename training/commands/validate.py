"""`python -m training validate`."""

import argparse
from pathlib import Path
from typing import Any, Final

from training import console
from training.data import quarantine
from training.data.sources import catalogue_of
from training.errors import TrainingError
from training.validation import Likeness, Validation, validate
from training.validation_findings import ERROR, WARNING
from training.validation_html import QUARANTINE
from training.validation_report import REPORT, write

DEFAULT: Final = Likeness()
_MAX_BITS: Final = 16  # beyond it the bands become so narrow that nearly all are compared with all
_EXIT_CODES: Final = """\
exit code:
  0  no errors (warnings are told, and count only with --strict)
  1  errors: corrupt files, the same picture in several splits or classes
  2  the data cannot be found or are laid out otherwise
"""


def add(commands: Any) -> None:
    """Adds `validate` to the parser."""
    command = commands.add_parser(
        "validate",
        help="look a data set over: corrupt files, copies, leaks between splits, balance",
        description="Reads every picture and writes report.html, report.json and quarantine.json.",
        epilog=_EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("--data", required=True, help="the data, named as for `train`")
    command.add_argument("--out", type=Path, help="folder for the report (default: validation/<the data's name>)")
    command.add_argument("--quarantine", default="", metavar="FILE", help="leave out what an earlier list names")
    command.add_argument(
        "--alike-bits", type=int, default=DEFAULT.max_bits, metavar="N",
        help="look-alikes: hashes differ in at most N of 64 bits, -1 to look for none (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--alike-correlation", type=float, default=DEFAULT.min_correlation, metavar="R",
        help="look-alikes: small grey versions correlate by at least R, 0 to 1 (default: %(default)s)",
    )  # fmt: skip
    command.add_argument(
        "--quarantine-alike", action="store_true", help="also list look-alikes of another split's pictures"
    )
    command.add_argument("--strict", action="store_true", help="exit with code 1 on warnings too")
    command.set_defaults(command=_validate)


def _validate(parsed: argparse.Namespace) -> None:
    likeness = _likeness(parsed)
    catalogue, left_out = quarantine.apply(catalogue_of(parsed.data), parsed.quarantine)
    found = validate(catalogue, likeness, leave_out_alike=parsed.quarantine_alike)
    folder = parsed.out or Path("validation") / catalogue.source
    write(folder, found)
    _tell(found, folder, left_out)
    if found.count(ERROR) or (parsed.strict and found.count(WARNING)):
        raise SystemExit(1)


def _likeness(parsed: argparse.Namespace) -> Likeness:
    if not -1 <= parsed.alike_bits <= _MAX_BITS:
        raise TrainingError(f"--alike-bits: expected -1 to {_MAX_BITS}; received '{parsed.alike_bits}'")
    if not 0 <= parsed.alike_correlation <= 1:
        raise TrainingError(f"--alike-correlation: expected 0 to 1; received '{parsed.alike_correlation}'")
    return Likeness(parsed.alike_bits, parsed.alike_correlation)


def _tell(found: Validation, folder: Path, left_out: int) -> None:
    catalogue = found.catalogue
    splits = ", ".join(f"{sum(counts.values()):,} {split}" for split, counts in found.summary.classes.items())
    aside = f"; {left_out:,} left out" if left_out else ""
    console.say(
        f"data   {catalogue.source} ({catalogue.form}): {found.pictures:,} pictures ({splits}), "
        f"{len(catalogue.labels):,} classes{aside}"
    )
    for finding in found.findings:
        console.say(f"{finding.level}: {finding.text}")
    if found.quarantine.reasons:
        console.say(
            f"list   {folder / QUARANTINE} names {len(found.quarantine.reasons):,} pictures;"
            f" leave them out with --quarantine {folder / QUARANTINE}"
        )
    console.say(f"report {folder / REPORT}")

"""Looks a data set over before anything is learnt from it.

catalogue ──read, hash, decode──▶ pictures ──▶ copies, look-alikes, balance, sizes, modes ──▶ findings
                                                                                                 │
                                 report.html, report.json, quarantine.json  ◀────────────────────┘
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training import console, validation_duplicates, validation_findings, validation_summary
from training.data.catalogue import Catalogue, ordered
from training.data.quarantine import Quarantine
from training.data.reading import fingerprint
from training.validation_findings import LEVELS, Finding
from training.validation_pictures import Picture, look
from training.validation_summary import Summary

MAX_PAIRS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Likeness:
    """When two pictures count as look-alikes.

    Args:
        max_bits: Their perceptual hashes differ in at most so many of 64 bits; negative: do not look for any.
        min_correlation: Their 16 × 16 grey versions correlate at least so much.
    """

    max_bits: int = 8
    min_correlation: float = 0.95


@dataclass(frozen=True, slots=True)
class Validation:
    """What was found.

    Args:
        catalogue: The data.
        pictures: How many there are.
        fingerprint: Of the data; "" if a file could not even be read.
        summary: What they consist of.
        findings: Errors first.
        likeness: What counted as a look-alike.
        quarantine: What to leave out.
    """

    catalogue: Catalogue
    pictures: int
    fingerprint: str
    summary: Summary
    findings: tuple[Finding, ...]
    likeness: Likeness
    quarantine: Quarantine

    def count(self, level: str) -> int:
        """How many kinds of faults of a level there are."""
        return sum(finding.level == level for finding in self.findings)


def validate(catalogue: Catalogue, likeness: Likeness, *, leave_out_alike: bool) -> Validation:
    """Reads every picture and looks for faults.

    Args:
        catalogue: The data.
        likeness: What counts as a look-alike.
        leave_out_alike: Also put look-alikes of another split's pictures in quarantine.
    """
    pictures = look(ordered(catalogue.items))
    summary = validation_summary.summary(catalogue, pictures)
    alike = validation_findings.look_alikes(pictures, _pairs(pictures, likeness))
    leaks = [group for finding in alike if finding.kind == "alike-leak" for group in finding.groups]
    findings = (
        *validation_findings.corrupt(pictures),
        *validation_findings.copies(pictures),
        *alike,
        *validation_summary.findings(summary),
    )
    hashes = [picture.sha256 for picture in pictures]
    return Validation(
        catalogue=catalogue,
        pictures=len(pictures),
        fingerprint=fingerprint(catalogue.labels, [one.item for one in pictures], hashes) if all(hashes) else "",
        summary=summary,
        findings=tuple(sorted(findings, key=lambda finding: LEVELS.index(finding.level))),
        likeness=likeness,
        quarantine=Quarantine(validation_findings.to_leave_out(pictures, leaks if leave_out_alike else ())),
    )


def _pairs(pictures: list[Picture], likeness: Likeness) -> NDArray[np.int64]:
    """Finds look-alikes among the usable pictures, of copies among the first only."""
    numbers = {one.sha256: number for number, one in reversed(list(enumerate(pictures))) if not one.fault}
    chosen = np.array(sorted(numbers.values()), dtype=np.int64)
    if likeness.max_bits < 0 or not len(chosen):
        return np.empty((0, 2), dtype=np.int64)
    pairs = validation_duplicates.alike(
        np.stack([pictures[number].signature for number in chosen]),
        max_bits=likeness.max_bits,
        min_correlation=likeness.min_correlation,
        max_pairs=MAX_PAIRS,
    )
    if len(pairs) == MAX_PAIRS:
        console.say(f"note: stopped at {MAX_PAIRS:,} look-alike pairs; raise --alike-correlation to see the closest")
    return chosen[pairs]

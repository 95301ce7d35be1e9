"""What `validate` leaves behind: a page for people, a record for programs, and a list for training."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from training import runs
from training.errors import TrainingError
from training.validation import Validation
from training.validation_findings import ERROR, WARNING, Finding
from training.validation_html import QUARANTINE, page

SCHEMA: Final = 1
REPORT: Final = "report.html"
RECORD: Final = "report.json"
_LISTED_GROUPS: Final = 1_000


def write(folder: Path, found: Validation) -> None:
    """Writes `report.html`, `report.json` and `quarantine.json`.

    Args:
        folder: Made if missing; earlier files of these names are replaced.
        found: What was found.

    Raises:
        TrainingError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        runs.write_json(folder / QUARANTINE, found.quarantine.to_json(found.catalogue.source))
        runs.write_json(folder / RECORD, to_json(found))
        (folder / REPORT).write_text(page(found), encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise TrainingError(f"cannot write to {folder} ({error}); choose another folder with --out") from error


def to_json(found: Validation) -> dict[str, Any]:
    """Returns what `report.json` holds; of many groups, the first thousand are listed."""
    shape = asdict(found.summary)
    shape["sizes_px"] = [
        {"height_px": height, "width_px": width, "pictures": count}
        for (height, width), count in found.summary.sizes_px.items()
    ]
    return {
        "schema": SCHEMA,
        "source": found.catalogue.source,
        "form": found.catalogue.form,
        "fingerprint": found.fingerprint,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "pictures": found.pictures,
        "labels": list(found.catalogue.labels),
        **shape,
        "likeness": asdict(found.likeness),
        "errors": found.count(ERROR),
        "warnings": found.count(WARNING),
        "findings": [_finding_json(finding, found.catalogue.labels) for finding in found.findings],
        "quarantined": len(found.quarantine.reasons),
    }


def _finding_json(finding: Finding, labels: tuple[str, ...]) -> Mapping[str, Any]:
    groups = [
        [{"file": one.item.key, "class": labels[one.item.label], "split": one.item.split} for one in group]
        for group in finding.groups[:_LISTED_GROUPS]
    ]
    return {
        "level": finding.level,
        "kind": finding.kind,
        "text": finding.text,
        "count": finding.count,
        "groups": groups,
    }

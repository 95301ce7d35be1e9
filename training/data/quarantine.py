"""The list of pictures to leave out: `validate` writes it, a person may edit it, training obeys it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from training import console
from training.data.catalogue import Catalogue, shortly
from training.errors import TrainingError

SCHEMA: Final = 1


@dataclass(frozen=True, slots=True)
class Quarantine:
    """What to leave out.

    Args:
        reasons: `Item.key` of each picture → why.
    """

    reasons: Mapping[str, str]

    def to_json(self, source: str) -> dict[str, Any]:
        """Returns what the file holds.

        Args:
            source: What the data are called; for readers only.
        """
        files = [{"file": key, "reason": reason} for key, reason in sorted(self.reasons.items())]
        return {"schema": SCHEMA, "source": source, "files": files}


def read(file: Path) -> Quarantine:
    """Reads a list.

    Raises:
        TrainingError: It is missing, or is no such list.
    """
    try:
        content = json.loads(file.read_bytes())
        reasons = {str(entry["file"]): str(entry["reason"]) for entry in content["files"]}
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"--quarantine: expected a list that `python -m training validate` wrote, received {file}"
            f" ({type(error).__name__}: {error}); write it again"
        ) from error
    if schema != SCHEMA:
        raise TrainingError(f"--quarantine: expected schema {SCHEMA} in {file}, received {schema!r}; write it again")
    return Quarantine(reasons)


def apply(catalogue: Catalogue, file: str) -> tuple[Catalogue, int]:
    """Leaves out what a list names.

    Args:
        catalogue: The data.
        file: The list; "" for none.

    Returns:
        The data that remain, and how many pictures were left out.

    Raises:
        TrainingError: The list belongs to other data, or leaves a class without pictures.
    """
    if not file:
        return catalogue, 0
    listed = set(read(Path(file)).reasons)
    unknown = sorted(listed - {item.key for item in catalogue.items})
    if listed and len(unknown) == len(listed):
        raise TrainingError(
            f"--quarantine: expected pictures of '{catalogue.source}' in {file}, received only others"
            f" ({shortly(unknown)}); name the list that was written for these data"
        )
    if unknown:
        console.say(f"note: {len(unknown):,} of the pictures in {file} are no longer there ({shortly(unknown)})")
    remaining = catalogue.without(listed)
    return remaining, len(catalogue.items) - len(remaining.items)

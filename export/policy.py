"""A model's traffic policy, `policy.json`, and what it was before, `policy.history.json`.

    models/<name>/
        policy.json             what a server follows (docs/architecture/models.md); replaced in one step
        policy.history.json     {"records": [...]}: newest last; `rollback` takes the newest off

The history is written first: should the power fail in between, the newest record describes a policy that never was, and
is recognised by that.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from export.errors import ExportError
from export.files import fsync_folder, write_json_whole

POLICY: Final = "policy.json"
HISTORY: Final = "policy.history.json"
KEPT_RECORDS: Final = 50

Policy = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Record:
    """One promotion.

    Args:
        version: What was promoted.
        at: When, as RFC 3339.
        before: The policy before it; None where there was no file.
        after: The policy that it wrote last; None where it removed the file.
        previous: The version that answered before.
        standby: The list that was written into `versions` to keep the version before loaded; empty where the user's
            own `versions` stands there.
    """

    version: int
    at: str
    before: Policy | None
    after: Policy | None
    previous: int
    standby: list[int] = field(default_factory=list)


def read_policy(folder: Path) -> Policy | None:
    """Reads the policy in force.

    Args:
        folder: `models/<name>`.

    Returns:
        Its parts, or None where there is no file.

    Raises:
        ExportError: The file is no JSON object; a server passes over it, too.
    """
    path = folder / POLICY
    value = _read_json(path)
    if value is None or isinstance(value, dict):
        return value
    raise ExportError(f"expected a JSON object in {path}, received {type(value).__name__}; correct or remove it")


def write_policy(folder: Path, policy: Policy | None) -> None:
    """Puts a policy in force.

    Args:
        folder: `models/<name>`.
        policy: Its parts; None to remove the file.
    """
    if policy is not None:
        write_json_whole(folder / POLICY, policy)
        return
    (folder / POLICY).unlink(missing_ok=True)
    fsync_folder(folder)


def read_history(folder: Path) -> list[Record]:
    """Reads the promotions that can be taken back, newest last.

    Args:
        folder: `models/<name>`.

    Raises:
        ExportError: The file is no history.
    """
    path = folder / HISTORY
    try:
        return [Record(**record) for record in (_read_json(path) or {"records": []})["records"]]
    except (TypeError, KeyError) as error:
        raise ExportError(f"{path} is no history of promotions: {error}; remove it to begin a new one") from error


def write_history(folder: Path, records: Sequence[Record]) -> None:
    """Writes the promotions that can be taken back.

    Args:
        folder: `models/<name>`.
        records: Newest last; only the newest are kept.
    """
    write_json_whole(folder / HISTORY, {"records": [asdict(record) for record in records[-KEPT_RECORDS:]]})


def named_versions(policy: Policy | None) -> set[int]:
    """The versions that a policy names anywhere.

    Args:
        policy: Its parts, or None.
    """
    parts = policy or {}
    found = [parts.get("default"), *(_version_of(parts.get(part)) for part in ("canary", "shadow"))]
    trial = parts.get("ab")
    found += list(trial.get("percent", ())) if isinstance(trial, dict) else []
    listed = parts.get("versions")
    found += listed if isinstance(listed, list) else str(listed or "").split(",")
    return {int(version) for version in found if str(version).isdecimal()}


def default_version(policy: Policy | None, known: list[int]) -> int:
    """The version that answers what no trial takes, as a server works it out.

    Args:
        policy: Its parts, or None.
        known: Versions on disk, oldest first, at least one.
    """
    wanted = (policy or {}).get("default")
    return wanted if isinstance(wanted, int) and wanted in known else known[-1]


def _version_of(part: Any) -> Any:
    return part.get("version") if isinstance(part, dict) else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ExportError(f"{path} is no JSON: {error}; correct or remove it") from error

"""Bringing a version to the callers in steps, and taking it back.

    promote 4 --steps 10,50,100:  default 3, canary 4 at 10 % ─wait─▶ 50 % ─wait─▶ default 4   each one rename
    rollback:                      the policy from before the promotion, in one rename

What the user had in the policy beside `default`, `canary` and `ab` stays. Where the user has not said which versions
are loaded, `versions` lists the version before and the new one: the old one stays loaded, so that a rollback does not
wait for a load.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from export import bundle
from export.check import check_bundle
from export.errors import ExportError
from export.policy import (
    Policy,
    Record,
    default_version,
    named_versions,
    read_history,
    read_policy,
    write_history,
    write_policy,
)
from export.times import now

ALL: Final = 100.0
_REPLACED: Final = ("default", "canary", "ab")

Say = Callable[[str], None]
Wait = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a promotion will write.

    Args:
        version: The new one.
        previous: The one that answers now, and takes the rest during a canary.
        policies: One policy for each step, the last one being where it ends.
        history: Newest last; the newest is this promotion, its `after` that of the first step.
    """

    version: int
    previous: int
    policies: tuple[Policy, ...]
    history: tuple[Record, ...]


def plan(folder: Path, known: list[int], version: int, steps: Sequence[float]) -> Plan:
    """Works out a promotion. Writes nothing.

    Args:
        folder: `models/<name>`.
        known: Versions on disk, oldest first.
        version: To promote, one of these.
        steps: Percent of the requests at each step, growing; 100 makes it the default.

    Raises:
        ExportError: There is nothing to promote, or nothing to compare a canary with.
    """
    current, history = read_policy(folder), read_history(folder)
    if not current or current.get("default") != version or any(part in current for part in ("canary", "ab")):
        before, earlier = _before(current, history, version)
        previous = _previous(before, known, version)
    else:
        raise ExportError(
            f"expected a version other than {version}, which answers everything already; to go back from it: rollback"
        )
    if steps[0] < ALL and previous == version:
        raise ExportError(
            f"expected another version of {folder.name} to take the other {ALL - steps[0]:g} %, {version} is the only"
            " one; promote it at once"
        )
    kept = _kept(before, earlier[-1] if earlier else None)
    standby = sorted({previous, version}) if "versions" not in kept else []
    rest = kept | ({"versions": standby} if standby else {})
    policies = tuple(_step(version, previous, percent) | rest for percent in steps)
    record = Record(version, now(), before, policies[0], previous, standby)
    return Plan(version, previous, policies, (*earlier, record))


def promote(
    models: Path,
    name: str,
    version: int,
    steps: Sequence[float],
    *,
    every_s: float,
    say: Say,
    trusted_keys: Path | None = None,
    wait: Wait = time.sleep,
) -> Plan:
    """Brings a version to the callers.

    Args:
        models: Folder of bundles.
        name: The model's name.
        version: One that is there.
        steps: Percent of the requests at each step, growing; 100 makes it the default.
        every_s: How long each step but the last stands, in seconds.
        say: Told of each step.
        trusted_keys: Public keys, one of which must have signed the bundle; None to ask for no signature.
        wait: Waits so many seconds. A KeyboardInterrupt from it leaves the step in force.

    Returns:
        What was written.

    Raises:
        ExportError: The bundle is not sound, or somebody else changed the policy between two steps.
    """
    folder = models / name
    check_bundle(folder / str(version), trusted_keys)
    with bundle.exclusive(models, name, say):
        planned = plan(folder, bundle.versions(models, name), version, steps)
        _put(folder, planned.history, planned.policies[0])
    _tell(say, planned, steps[0])
    for percent, before, policy in zip(steps[1:], planned.policies, planned.policies[1:], strict=False):
        wait(every_s)
        with bundle.exclusive(models, name, say):
            _go_on(folder, planned, before, policy)
        _tell(say, planned, percent)
    return planned


def rollback_target(folder: Path, known: list[int]) -> tuple[Policy | None, list[Record]]:
    """Works out what a rollback returns to. Writes nothing.

    The policy before the newest promotion; where that pins no version, or there was no promotion, the version that
    answered before is pinned, because the latest one is what is being left.

    Args:
        folder: `models/<name>`.
        known: Versions on disk, oldest first.

    Returns:
        The policy, and the history that is left.

    Raises:
        ExportError: There is nothing to return to.
    """
    current, records = read_policy(folder), read_history(folder)
    while records and records[-1].before == current:  # the power failed before that promotion's policy was written
        records.pop()
    last = records.pop() if records else None
    leaving = last.version if last else default_version(current, known)
    before = last.before if last else None
    if before and before.get("default") in known and before["default"] != leaving:
        return _without_trial_of(before, leaving), records
    target = last.previous if last else max((version for version in known if version < leaving), default=0)
    if target not in known or target == leaving:
        raise ExportError(
            f"expected a version of {folder.name} before {leaving} to return to, found {known};"
            " promote the one that should answer"
        )
    return {"default": target} | _kept(current, last), records


def rollback(models: Path, name: str, say: Say) -> Policy | None:
    """Returns to what was before the newest promotion, at once.

    Args:
        models: Folder of bundles.
        name: The model's name.
        say: Told when there is something to wait for.

    Returns:
        The policy now in force; None where there is no file any more.
    """
    folder = models / name
    with bundle.exclusive(models, name, say):
        target, records = rollback_target(folder, bundle.versions(models, name))
        write_policy(folder, target)
        write_history(folder, records)
    return target


def _previous(before: Policy | None, known: list[int], version: int) -> int:
    answering = default_version(before, known)
    if answering != version:
        return answering
    older = [one for one in known if one < version]
    others = older or [one for one in known if one != version]
    return others[-1] if others else version


def _before(current: Policy | None, history: list[Record], version: int) -> tuple[Policy | None, tuple[Record, ...]]:
    # A canary that goes on is one promotion with its first step: a rollback must not return to the canary.
    if history and history[-1].version == version and history[-1].after == current:
        return history[-1].before, tuple(history[:-1])
    return current, tuple(history)


def _kept(policy: Policy | None, last: Record | None) -> Policy:
    # What the user has put there: not what a promotion replaces, nor the `versions` that the last one wrote.
    kept = {key: value for key, value in (policy or {}).items() if key not in _REPLACED}
    if last and last.standby and kept.get("versions") == last.standby:
        del kept["versions"]
    return kept


def _without_trial_of(policy: Policy, version: int) -> Policy:
    trials = {part: policy[part] for part in ("canary", "ab") if part in policy}
    named = {part for part, trial in trials.items() if version in named_versions({part: trial})}
    return {key: value for key, value in policy.items() if key not in named}


def _step(version: int, previous: int, percent: float) -> Policy:
    if percent >= ALL:
        return {"default": version}
    return {"default": previous, "canary": {"version": version, "percent": percent}}


def _put(folder: Path, records: Sequence[Record], policy: Policy) -> None:
    write_history(folder, records)
    write_policy(folder, policy)


def _go_on(folder: Path, planned: Plan, before: Policy, policy: Policy) -> None:
    if read_policy(folder) != before:
        raise ExportError(
            f"expected the policy of {folder.name} as the last step left it, somebody has changed it; nothing more was"
            f" written; go on with: promote {folder.name} {planned.version}"
        )
    history = read_history(folder)
    _put(folder, [*history[:-1], replace(history[-1], after=policy)], policy)


def _tell(say: Say, planned: Plan, percent: float) -> None:
    if percent >= ALL:
        say(f"version {planned.version} answers everything")
    else:
        say(f"version {planned.version} answers {percent:g} %, version {planned.previous} the rest")

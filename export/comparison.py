"""Two versions side by side: what they are, what they were measured to do, and what made them different.

    manifest.json + export.json, twice ──▶ Compared ──▶ tables, or JSON

Speeds are of the machine that exported each; they compare only when that was the same one, so it is listed.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from export import bundle
from export.report import size
from export.settings import FLOAT32
from protos import bundle_pb2


@dataclass(frozen=True, slots=True)
class Row:
    """One fact of both versions.

    Args:
        what: Its name.
        one: Of the first version, None where it is unknown.
        other: Of the second version.
        change: The second less the first, where that is a number.
    """

    what: str
    one: Any
    other: Any
    change: float | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """What `compare` found.

    Args:
        name: Of the model.
        versions: The two.
        measures: Accuracy, agreement, size and speed, by variant.
        classes: Accuracy of each class, by the float32 variant.
        origins: Data, run and settings; of the settings those that differ.
    """

    name: str
    versions: tuple[int, int]
    measures: list[Row]
    classes: list[Row]
    origins: list[Row]

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Side:
    manifest: bundle_pb2.Manifest
    report: dict[str, Any]

    def variant(self, name: str) -> bundle_pb2.Variant | None:
        return next((one for one in self.manifest.variants if one.name == name), None)

    def attempt(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.report.get("variants", {}).get(name, {})
        return found


def compare(one: Path, other: Path) -> Compared:
    """Compares two bundles.

    Args:
        one: `models/<name>/<version>`.
        other: Another version's folder.

    Raises:
        ExportError: One of them has no manifest, or it cannot be read.
    """
    first, second = (_Side(bundle.read_manifest(folder), bundle.read_report(folder)) for folder in (one, other))
    return Compared(
        one.parent.name,
        (int(one.name), int(other.name)),
        list(_measures(first, second)),
        _classes(first, second),
        [*_origins(first, second), *_settings(first, second)],
    )


def _row(what: str, one: Any, other: Any) -> Row:
    numbers = isinstance(one, int | float) and isinstance(other, int | float)
    return Row(what, one, other, other - one if numbers else None)


def _measures(first: _Side, second: _Side) -> Iterable[Row]:
    yield _row("parameters", first.manifest.parameters, second.manifest.parameters)
    yield _row("accuracy, Keras", *(side.report.get("reference_accuracy") for side in (first, second)))
    names = dict.fromkeys(variant.name for side in (first, second) for variant in side.manifest.variants)
    for name in names:
        sides = first.variant(name), second.variant(name)
        for what in ("accuracy", "agreement", "size_bytes", "images_per_s"):
            yield _row(f"{what}, {name}", *(None if one is None else getattr(one, what) for one in sides))
        yield _row(f"recipe, {name}", *(side.attempt(name).get("recipe") for side in (first, second)))


def _classes(first: _Side, second: _Side) -> list[Row]:
    ours, theirs = _class_accuracies(first), _class_accuracies(second)
    return [_row(label, ours.get(label), theirs.get(label)) for label in dict.fromkeys([*ours, *theirs])]


def _class_accuracies(side: _Side) -> dict[str, float | None]:
    measured = side.attempt(FLOAT32).get("comparison", {}).get("class_accuracy", [])
    return dict(zip(side.manifest.labels, measured, strict=False))


def _origins(first: _Side, second: _Side) -> Iterable[Row]:
    facts: dict[str, Callable[[_Side], Any]] = {
        "created": lambda side: side.manifest.created_at,
        "architecture": lambda side: side.manifest.architecture,
        "labels": lambda side: ", ".join(side.manifest.labels),
        "data": lambda side: side.manifest.dataset.source,
        "data fingerprint": lambda side: side.manifest.dataset.fingerprint,
        "rows": lambda side: dict(sorted(side.manifest.dataset.rows.items())),
        "run": lambda side: side.manifest.training.run,
        "seed": lambda side: side.manifest.training.seed,
        "epochs": lambda side: side.manifest.training.epochs,
        "revision": lambda side: side.manifest.training.git_revision,
        "exported on": lambda side: side.report.get("machine", {}).get("processor"),
    }
    return [Row(what, fact(first), fact(second)) for what, fact in facts.items()]


def _settings(first: _Side, second: _Side) -> Iterable[Row]:
    # Only what differs: a run has dozens of settings.
    for part in ("training", "settings", "gates"):
        ours, theirs = _flat(first.report.get(part, {})), _flat(second.report.get(part, {}))
        for key in sorted(ours.keys() | theirs.keys()):
            if ours.get(key) != theirs.get(key):
                yield Row(f"{part}: {key}", ours.get(key), theirs.get(key))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{prefix}.{key}" if prefix else str(key))
    return found


def tables(compared: Compared) -> list[Table]:
    """Renders a comparison.

    Args:
        compared: Of `compare`.
    """
    titles = {"measures": compared.measures, "accuracy by class": compared.classes, "origin": compared.origins}
    return [_table(f"{compared.name}: {title}", compared.versions, rows) for title, rows in titles.items() if rows]


def _table(title: str, versions: tuple[int, int], rows: list[Row]) -> Table:
    table = Table("", *(f"version {version}" for version in versions), "change", title=title, title_justify="left")
    table.columns[3].justify = "right"
    for row in rows:
        differs = "" if row.one == row.other else "differs"
        change = differs if row.change is None else _spell_change(row)
        table.add_row(row.what, _spell(row.what, row.one), _spell(row.what, row.other), change)
    return table


def _spell(what: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, float):
        return f"{value:,.0f}" if what.startswith("images_per_s") else f"{value:.2%}"
    if what.startswith("size_bytes"):
        return size(value)
    return f"{value:,}" if isinstance(value, int) and what == "parameters" else str(value)


def _spell_change(row: Row) -> str:
    if not row.change:
        return ""
    if row.what.startswith(("size_bytes", "images_per_s", "parameters")):
        return f"× {row.other / row.one:.2f}" if row.one else ""
    return f"{100 * (row.change or 0.0):+.2f} points"

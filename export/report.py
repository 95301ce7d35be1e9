"""Tables for the terminal."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from export.settings import FLOAT32
from protos import bundle_pb2

KIB: Final = 1024


def variants_table(manifest: bundle_pb2.Manifest, report: dict[str, Any]) -> RenderableType:
    """One line for each variant of a bundle, and one for each that was refused, with the reason below.

    Args:
        manifest: The bundle's.
        report: Its `export.json`, or empty.
    """
    title = f"{manifest.name} version {manifest.version}"
    table = Table("variant", "size", "accuracy", "agreement", "images/s, 1 thread", "× float32", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    base = next((one.images_per_s for one in manifest.variants if one.name == FLOAT32), 0.0)
    for one in manifest.variants:
        factor = f"{one.images_per_s / base:.2f}" if base else ""
        table.add_row(
            one.name,
            size(one.size_bytes),
            f"{one.accuracy:.2%}",
            f"{one.agreement:.2%}",
            f"{one.images_per_s:,.0f}",
            factor,
        )
    refused = [f"{entry['variant']} was refused: {'; '.join(entry['reasons'])}" for entry in report.get("refused", [])]
    return Group(table, *(Text(line) for line in refused))


def bundles_table(manifests: Iterable[bundle_pb2.Manifest]) -> Table:
    """One line for each bundle.

    Args:
        manifests: Of the bundles.
    """
    table = Table("name", "version", "created", "architecture", "parameters", "variants", "accuracy", "size")
    for manifest in manifests:
        accuracy = f"{manifest.variants[0].accuracy:.2%}" if manifest.variants else ""
        table.add_row(
            manifest.name,
            str(manifest.version),
            manifest.created_at,
            manifest.architecture,
            f"{manifest.parameters:,}",
            ", ".join(one.name for one in manifest.variants),
            accuracy,
            size(sum(one.size_bytes for one in manifest.variants)),
        )
    return table


def facts_table(manifest: bundle_pb2.Manifest, folder: Path) -> Table:
    """What a manifest says beside its variants.

    Args:
        manifest: The bundle's.
        folder: Where it is.
    """
    table = Table(show_header=False, box=None)
    picture = manifest.preprocessing
    labels = ", ".join(manifest.labels[:10]) + (f", … ({len(manifest.labels)})" if len(manifest.labels) > 10 else "")  # noqa: PLR2004 - one line
    facts = {
        "folder": str(folder),
        "created": manifest.created_at,
        "architecture": f"{manifest.architecture}, {manifest.parameters:,} parameters, {manifest.framework}",
        "takes": f"{picture.height} × {picture.width} × {picture.channels} pixels",
        "scaling": f"pixel × {picture.scale:.6g} + {picture.offset:.6g}, inside the graph",
        "labels": labels,
        "run": f"{manifest.training.run}, {manifest.training.epochs} epochs, seed {manifest.training.seed}",
        "data": f"{manifest.dataset.source}, {manifest.dataset.fingerprint}",
        "activation map": manifest.explanation.graph.file or "none: the architecture has no such head",
        "signature": "manifest.sig" if (folder / "manifest.sig").exists() else "none",
        "golden": f"{manifest.golden.images} images, tolerance {manifest.golden.tolerance:g}",
        "tools": ", ".join(f"{name} {version}" for name, version in sorted(manifest.tools.items())),
    }
    for key, value in facts.items():
        table.add_row(key, Text(value))
    return table


def size(count_bytes: int) -> str:
    """Writes a size as people read it.

    Args:
        count_bytes: The size.
    """
    return f"{count_bytes / KIB:,.0f} KiB" if count_bytes < KIB * KIB else f"{count_bytes / KIB / KIB:.2f} MiB"

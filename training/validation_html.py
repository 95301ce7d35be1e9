"""The page of a validation: one file, its examples embedded, no scripts."""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from PIL import Image

from server import images
from server.errors import UnsupportedImage
from server.images import ImageSpec
from training.validation import Validation
from training.validation_findings import ERROR, WARNING, Finding
from training.validation_pictures import Picture

QUARANTINE: Final = "quarantine.json"
EXAMPLES: Final = 12  # groups shown of each finding
_GROUP_PICTURES: Final = 4
_THUMB_PX: Final = 72
_STYLE: Final = """
:root {
  color-scheme: light dark;
  --line: #8884; --soft: #8882; --bar: #3b7dd8; --error: #d33; --warning: #c77700; --note: #888;
}
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
code { background: var(--soft); padding: .1em .3em; border-radius: 3px; overflow-wrap: anywhere; }
table { border-collapse: collapse; } td, th { padding: .15rem .8rem .15rem 0; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; }
.bar { width: 12rem; } .bar div { background: var(--bar); height: .7rem; border-radius: 2px; }
.finding { --level: var(--note); border-left: 4px solid var(--level); padding: .1rem 1rem; margin: 1rem 0; }
.finding.error { --level: var(--error); } .finding.warning { --level: var(--warning); }
.level { font-weight: 600; color: var(--level); } .groups { display: flex; flex-wrap: wrap; gap: 1rem; }
.group { display: flex; gap: .4rem; border: 1px solid var(--line); border-radius: 6px; padding: .4rem; }
figure { margin: 0; width: 8.5rem; } figcaption { font-size: .72rem; line-height: 1.25; overflow-wrap: anywhere; }
img { width: 72px; height: 72px; object-fit: contain; image-rendering: pixelated; background: var(--soft); }
.quiet { opacity: .75; }
"""


def page(found: Validation) -> str:
    """Renders the report.

    Args:
        found: What was found.

    Returns:
        A whole HTML document.
    """
    source, labels = html.escape(found.catalogue.source), found.catalogue.labels
    errors, warnings = found.count(ERROR), found.count(WARNING)
    parts = [
        f"<h1>{source}</h1>",
        _origin(found),
        f"<p><strong>Kinds of errors: {errors}. Kinds of warnings: {warnings}.</strong> {_advice(found)}</p>",
        "<h2>Findings</h2>",
        *(_finding(finding, labels) for finding in found.findings),
        "" if found.findings else "<p>None.</p>",
        "<h2>Pictures per class</h2>",
        *(_classes(split, counts) for split, counts in found.summary.classes.items()),
        "<h2>Sizes, modes, formats</h2>",
        _shape(found),
    ]
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{source}: validation</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head>\n<body>'
        + "\n".join(parts)
        + ("</body></html>\n")
    )


def _origin(found: Validation) -> str:
    return (
        f'<p class="quiet">{html.escape(found.catalogue.form)} · {found.pictures:,} pictures ·'
        f" {len(found.catalogue.labels):,} classes · {found.summary.total_bytes / 1e6:,.1f} MB ·"
        f" <code>{found.fingerprint or 'no fingerprint: a file cannot be read'}</code></p>"
    )


def _advice(found: Validation) -> str:
    count = len(found.quarantine.reasons)
    if not count:
        return "Nothing needs to be left out."
    return (
        f"{count:,} pictures are listed in <code>{QUARANTINE}</code>; train without them by <code>--quarantine</code>."
    )


def _finding(finding: Finding, labels: tuple[str, ...]) -> str:
    shown = finding.groups[:EXAMPLES]
    more = (
        f'<p class="quiet">and {len(finding.groups) - len(shown):,} more</p>' if len(finding.groups) > EXAMPLES else ""
    )
    groups = "".join(
        f'<div class="group">{"".join(_figure(one, labels) for one in group[:_GROUP_PICTURES])}</div>'
        for group in shown
    )
    return (
        f'<div class="finding {finding.level}"><p><span class="level">{finding.level}: {finding.kind}</span>'
        f' {html.escape(finding.text)}</p><div class="groups">{groups}</div>{more}</div>'
    )


def _figure(picture: Picture, labels: tuple[str, ...]) -> str:
    caption = f"{html.escape(_printable(picture.item.key))}<br>{html.escape(labels[picture.item.label])}"
    if picture.fault:
        return f"<figure><figcaption>{caption}<br>{html.escape(picture.fault)}</figcaption></figure>"
    return f'<figure><img alt="" src="{_data_uri(picture)}"><figcaption>{caption}</figcaption></figure>'


def _data_uri(picture: Picture) -> str:
    height, width = picture.size_px
    scale = min(1.0, _THUMB_PX / max(height, width))
    spec = ImageSpec(max(1, round(height * scale)), max(1, round(width * scale)), 3)
    try:
        pixels = images.decode(picture.item.read(), spec)
    except (UnsupportedImage, OSError):  # gone since it was looked at
        pixels = np.zeros(spec.shape, dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"


def _classes(split: str, counts: Mapping[str, int]) -> str:
    largest = max(counts.values()) or 1
    rows = "".join(
        f'<tr><td>{html.escape(_printable(label))}</td><td class="number">{count:,}</td>'
        f'<td class="bar"><div style="width:{100 * count / largest:.1f}%"></div></td></tr>'
        for label, count in counts.items()
    )
    return f"<h3>{split}: {sum(counts.values()):,}</h3><table>{rows}</table>"


def _shape(found: Validation) -> str:
    shape = found.summary
    sizes = ((f"{height} × {width}", count) for (height, width), count in shape.sizes_px.items())
    smallest, median, largest = shape.sides_px
    return (
        f"<p>{shape.distinct_sizes:,} sizes (height × width in pixels); sides from {smallest:,} to {largest:,},"
        f" median {median:,}. The most common:</p>"
        + _table("size", sizes)
        + _table("mode", shape.modes.items())
        + _table("format", shape.kinds.items())
    )


def _table(title: str, rows: Iterable[tuple[str, int]]) -> str:
    body = "".join(f'<tr><td>{html.escape(name)}</td><td class="number">{count:,}</td></tr>' for name, count in rows)
    return f'<div class="wide"><table><tr><th>{title}</th><th>pictures</th></tr>{body}</table></div>'


def _printable(name: str) -> str:
    """Shows bytes of a file's name that are no UTF-8 as question marks."""
    return name.encode("utf-8", "replace").decode("utf-8")

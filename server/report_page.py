"""A report as one HTML page: its figures are inline SVG, so it needs no other file and no script.

Report ──escape──▶ bars by day and version, tables ──▶ HTML
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from server.report import Report

# Okabe and Ito's colours, which people with any colour vision can tell apart (Color Universal Design, 2008).
COLOURS: Final = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
HEIGHT_PX: Final = 180
BAR_PX: Final = 26
_CSS: Final = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.25rem .75rem;border-bottom:1px solid #ddd;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums}svg{overflow:visible;margin:1rem 0}i{display:inline-block;"
    "width:.8em;height:.8em;margin-right:.3em}@media(prefers-color-scheme:dark){body{background:#181818;color:#ddd}"
    "th,td{border-color:#444}svg text{fill:#ddd}}"
)


def render_page(report: "Report") -> str:
    """The page.

    Args:
        report: What it tells.
    """
    parts = [
        f"<h1>Predictions of {report.days} days</h1>",
        f"<p>{report.predictions:,} pictures were answered and logged. Days are UTC's. {escape(report.made_at)}</p>",
        _gaps(report),
        "<h2>By day</h2>",
        _bars(report),
        _table(("Day", "Predictions"), [(day, f"{count:,}") for day, count in report.by_day.items()]),
        "<h2>By version</h2>",
        _versions(report),
        "<h2>By client</h2>",
        _table(("Client", "Predictions"), [(name or "unknown", f"{n:,}") for name, n in report.by_client.items()]),
        "<h2>By model</h2>",
        _table(("Model", "Predictions"), [(name, f"{n:,}") for name, n in report.by_model.items()]),
        "<h2>By day, client and version</h2>",
        _usage(report),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Predictions</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_CSS}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _versions(report: "Report") -> str:
    rows = [
        (
            f"{one.model} {one.version}",
            one.variant,
            f"{one.predictions:,}",
            f"{one.feedback:,}",
            _share(one.accuracy),
            _share(one.expected_accuracy),
        )
        for one in report.versions
    ]
    return _table(("Version", "Variant", "Predictions", "Feedback", "Right, of these", "Expected"), rows, texts=2)


def _usage(report: "Report") -> str:
    rows = [
        (
            one.day,
            one.client or "unknown",
            f"{one.model} {one.version}",
            f"{one.predictions:,}",
            f"{one.mean_latency_ms:,.1f} ms",
            _share(one.mean_confidence),
        )
        for one in report.usage
    ]
    return _table(("Day", "Client", "Version", "Predictions", "Mean latency", "Mean confidence"), rows, texts=3)


def _gaps(report: "Report") -> str:
    if not report.gaps:
        return ""
    lost = sum(gap.rows for gap in report.gaps)
    rows = [(gap.began, gap.ended, gap.reason, f"{gap.rows:,}") for gap in report.gaps]
    return (
        f"<p><strong>{lost:,} more were answered and are not in the log.</strong></p>"
        f"{_table(('From', 'To', 'Why', 'Predictions'), rows, texts=3)}"
    )


def _bars(report: "Report") -> str:
    """One bar for each day, in parts by version."""
    if not report.by_day:
        return "<p>Nothing was predicted.</p>"
    parts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one in report.usage:
        parts[one.day][f"{one.model} {one.version}"] += one.predictions
    versions = sorted({name for day in parts.values() for name in day})
    colour = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(versions)}
    scale = HEIGHT_PX / max(report.by_day.values())
    drawn = "".join(
        _bar(number * BAR_PX, day, parts[day], colour, scale) for number, day in enumerate(sorted(report.by_day))
    )
    legend = " ".join(f'<span><i style="background:{colour[name]}"></i>{escape(name)}</span>' for name in versions)
    label = f"Predictions by day, {max(report.by_day.values()):,} at most"
    width, height = BAR_PX * len(report.by_day), HEIGHT_PX + 70
    return (
        f'<svg role="img" aria-label="{label}" width="{width}" height="{height}" viewBox="0 0 {width} {height}">'
        f"{drawn}</svg><p>{legend}</p>"
    )


def _bar(x: int, day: str, parts: dict[str, int], colour: dict[str, str], scale: float) -> str:
    drawn, y = [], float(HEIGHT_PX)
    for name, count in sorted(parts.items()):
        y -= count * scale
        drawn.append(
            f'<rect x="{x}" y="{y:.1f}" width="{BAR_PX - 4}" height="{count * scale:.1f}" fill="{colour[name]}">'
            f"<title>{escape(f'{day}, {name}: {count:,}')}</title></rect>"
        )
    place = f'x="{x + BAR_PX // 2}" y="{HEIGHT_PX + 8}"'
    return f'{"".join(drawn)}<text {place} font-size="11" writing-mode="vertical-rl">{day[5:]}</text>'


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], texts: int = 1) -> str:
    """A table whose first columns are texts and the others numbers."""
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    lines = "".join(
        "<tr>"
        + "".join(f"<td{' class=n' if at >= texts else ''}>{escape(cell)}</td>" for at, cell in enumerate(row))
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{lines}</tbody></table>"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"

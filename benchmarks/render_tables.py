"""Each result as a Markdown table; see `render`."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from benchmarks.peer_servers import read_peers
from benchmarks.stage_table import STAGES, rounded

Result = dict[str, Any]
Lines = list[str]

AIM_MS: Final = 200  # of locust's p99
_PAYLOADS: Final = {
    "jpeg": "JPEG upload",
    "png": "PNG upload",
    "upload": "upload",
    "json": "JSON numbers",
    "binary": "binary tensor",
    "grpc": "gRPC, unary",
    "grpcio": "gRPC, unary, ours by grpcio",
    "stream": "gRPC, ours by a stream, theirs unary",
}


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Lines:
    """A Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def provenance(result: Result) -> str:
    """What a result was measured on, with which versions, and by which command."""
    machine = result["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in ("onnxruntime", "aiohttp", "grpcio") if name in machine)
    return (
        f"<sub>{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}, {versions}:"
        f" `{result['command']}`</sub>"
    )


def limit(result: Result) -> Lines:
    """Shares of the bare engine."""
    rows = (
        [name, f"{row['per_s']:,.0f}", f"{row['cpu_us']:.0f} µs", _load(row), _spread(row["shares"])]
        for name, row in result["limit"].items()
    )
    head = ["", "images per second", "CPU time of one", "of the load, on the same cores", "share of the engine"]
    return table(head, rows)


def _load(row: Result) -> str:
    return f"{row['load_us']:.0f} µs" if row["load_us"] else "–"


def peak(result: Result) -> Lines:
    """By payload and connections, on the hot path and by aiohttp."""
    found = {(row["payload"], row["connections"], row["way"]): row for row in result["peak"]}
    keys = dict.fromkeys((payload, connections) for payload, connections, _ in found)
    rows = [
        [_PAYLOADS[payload], str(connections), *(_rate(found[payload, connections, way]) for way in ("hot", "aiohttp"))]
        for payload, connections in keys
    ]
    return table(["", "connections", "hot path", "aiohttp"], rows)


def peers(result: Result) -> Lines:
    """A row for each peer in each column, and one for ours."""
    found = [{"column": "jpeg"} | row for row in result["peers"]]
    under_way = sorted({row["connections"] for row in found})
    head = [""]
    for number in under_way:
        head += [f"{number} under way", "CPU time"]
    lines: Lines = []
    for column in dict.fromkeys(row["column"] for row in found):
        mine = [row for row in found if row["column"] == column]
        rows = [["Shoal", *_cells(_ours(mine), under_way, ratios=False)]]
        rows += [
            [_named(mine, name), *_cells([row for row in mine if row["name"] == name], under_way, ratios=True)]
            for name in dict.fromkeys(row["name"] for row in mine if row["name"] != "Shoal")
        ]
        lines += [f"**{_PAYLOADS[column]}**", "", *table(head, rows), ""]
    lines += _not_in(found, result.get("left_out", {}))
    left_out = [f"- {name}: {reason}" for name, reason in result.get("left_out", {}).items()]
    return [*lines[:-1], *(["", "Not measured:", "", *left_out] if left_out else [])]


def _not_in(found: list[Result], left_out: Result) -> Lines:
    """Which peers and columns of `peers/settings.toml` a run was not asked for, so that nobody takes them for lost."""
    known = read_peers()
    told = {row["name"] for row in found} | {name.rsplit(", ", 1)[0] for name in left_out}
    columns = {row["column"] for row in found} | {name.rsplit(", ", 1)[-1] for name in left_out}
    peers = [peer.name for peer in known if peer.name not in told]
    kinds = [
        _PAYLOADS[kind] for kind in dict.fromkeys(c for peer in known for c in peer.columns) if kind not in columns
    ]
    return [f"Not in this run: {'; '.join([*peers, *kinds])}.", ""] if peers or kinds else []


def best_peers(result: Result) -> Lines:
    """Ours beside the fastest other server of each column."""
    under_way = sorted({row["connections"] for row in result["peers"]})
    rows = []
    for column in dict.fromkeys(row["column"] for row in result["peers"]):
        mine = [row for row in result["peers"] if row["column"] == column]
        rows.append([_PAYLOADS[column], *(_best([one for one in mine if one["connections"] == n]) for n in under_way)])
    return table(["one image a request", *(f"{number} under way" for number in under_way)], rows)


def _best(rows: list[Result]) -> str:
    if not rows:
        return "–"
    best = max(rows, key=lambda row: float(row["per_s"]))
    return f"{best['ours_per_s']:,.0f} per s: {statistics.median(best['ours_faster']):.2f} times {best['name']}"


def poisson(result: Result) -> Lines:
    """The rate for each bound."""
    rows = [
        [name, *_rates(found, float(name.split()[2])), _spread(found["shares"]) if found["shares"] else "0"]
        for name, found in result.items()
        if name.startswith("p99 within")
    ]
    head = [f"{result['server_cores']} cores for the server", "highest rate", "rounds at it that did not hold"]
    return table([*head, "share of the engine"], rows)


def _rates(found: Result, bound_ms: float) -> list[str]:
    """The last rate that held, with the spread over the rounds that did, and how many did not.

    Results of before `rounds_failed` have every try as a probe, and may name a rate that was never tried.
    """
    if "rounds_failed" in found:
        rates, tried = found["rates_per_s"], len(found["rounds"])
        spread = "" if len(set(rates)) < 2 else f" ({min(rates):,.0f}–{max(rates):,.0f})"  # noqa: PLR2004
        return [f"{found['rate_per_s']:,.0f} per s{spread}", f"{found['rounds_failed']} of {tried}"]
    held = [probe["rate_per_s"] for probe in found["probes"] if probe["valid"] and probe["p99_ms"] <= bound_ms]
    return [f"{held[-1] if held else 0:,.0f} per s", "not counted"]


def bounds(result: Result) -> Lines:
    """Every figure beside its bound."""
    rows = [
        [name, f"{figure['value']:g}", f"{figure['bound']:g}", "yes" if figure["held"] else "no"]
        for name, figure in result["figures"].items()
    ]
    return table(["", "measured", "aim", "reached"], rows)


def photos(result: Result) -> Lines:
    """The limit, ours and mosec, and how each server was started."""
    rows = [[name, _rate(row), _times(row["ours_faster"])] for name, row in result["photos"].items()]
    lines = table(["", "photographs per second, CPU time of one", "ours is so many times as fast"], rows)
    settings = [f"- {name}: `{told}`" for name, told in result.get("settings", {}).items()]
    return [*lines, *(["", *settings] if settings else [])]


def locust(result: Result) -> Lines:
    """What each kind of user felt."""
    columns = {"count": "Request Count", "failed": "Failure Count", "per s": "Requests/s", "p50": "50%", "p99": "99%"}
    rows = [
        [f"{row['protocol']}, {row['name']}", *(f"{row[column]:,.0f}" for column in columns.values())]
        for row in result["rows"]
    ]
    return table(["", "requests", "failed", "per s", "median, ms", "p99, ms"], rows)


def slowest_users(result: Result) -> Lines:
    """The longest p99 of each protocol's users, and whether anything failed."""
    rows = []
    for protocol in dict.fromkeys(row["protocol"] for row in result["rows"]):
        mine = [row for row in result["rows"] if row["protocol"] == protocol]
        count, failed = (sum(row[column] for row in mine) for column in ("Request Count", "Failure Count"))
        p99 = max(row["99%"] for row in mine)
        rows.append([protocol, f"{count:,.0f}", f"{failed:,.0f}", f"{p99:,.0f}", "yes" if p99 < AIM_MS else "no"])
    return table(["locust's users", "requests", "failed", "p99, ms", f"below {AIM_MS}"], rows)


def gate(result: Result) -> Lines:
    """CPU time as a multiple of the engine's."""
    rows = [[_PAYLOADS[name], _spread(column["rounds"])] for name, column in result["columns"].items()]
    return table(["", "CPU time of a request, times the engine's of an image"], rows)


def stages(result: Result) -> Lines:
    """CPU time of a request by stage, in whole microseconds that add up, and the engine's own beside it."""
    columns = result["stages"]
    whole = {
        column: dict(zip(one["stages"], rounded([stage["us"] for stage in one["stages"].values()]), strict=True))
        for column, one in columns.items()
    }
    why = {stage.name: stage.why for stage in STAGES}
    names = list(next(iter(columns.values()))["stages"])
    rows = [
        [name, *(_part(whole[column][name], one["stages"][name]) for column, one in columns.items()), why.get(name, "")]
        for name in names
    ]
    told = [_part(sum(whole[column].values()), one["cpu_us"]) for column, one in columns.items()]
    rows.append(["**all**", *told, "CPU time of the server's processes for a request"])
    for batch, engine in result["engine"].items():
        told = [_part(round(engine["us"]), engine)] * len(columns)
        rows.append([f"engine alone, batches of {batch}", *told, "an image by `python -m benchmarks.bare_engine`"])
    return table(["stage", *(f"{_PAYLOADS[column]}, µs" for column in columns), "why"], rows)


def _part(us: int, stage: Result) -> str:
    low, high = round(min(stage["rounds"])), round(max(stage["rounds"]))
    return f"{us}" if low == high else f"{us} ({low}–{high})"


def _ours(rows: list[Result]) -> list[Result]:
    """Our own row: measured as one, or the median of what was measured beside each peer."""
    measured = [row for row in rows if row["name"] == "Shoal"]
    if measured:
        return measured
    found = []
    for number in sorted({row["connections"] for row in rows}):
        beside = [row for row in rows if row["connections"] == number]
        middle = {key: statistics.median(row[f"ours_{key}"] for row in beside) for key in ("per_s", "cpu_us")}
        found.append({"connections": number, **middle})
    return found


def _named(rows: list[Result], name: str) -> str:
    version = next((row["version"] for row in rows if row["name"] == name and row.get("version")), "")
    return f"{name} ({version})" if version else name


def _cells(rows: list[Result], under_way: list[int], *, ratios: bool) -> list[str]:
    cells = []
    for number in under_way:
        row = next((row for row in rows if row["connections"] == number), None)
        if row is None:
            cells += ["–", "–"]
            continue
        faster = f" (ours {_times(row['ours_faster'])})" if ratios else ""
        cheaper = f" (ours {statistics.median(row['ours_cpu']):.2f} times)" if ratios else ""
        cells += [f"{row['per_s']:,.0f} per s{faster}", f"{row['cpu_us']:.0f} µs{cheaper}"]
    return cells


def _rate(row: Result) -> str:
    return f"{row['per_s']:,.0f} per s, {row['cpu_us']:,.0f} µs"


def _times(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} times, {min(ratios):.2f}–{max(ratios):.2f}"


def _spread(values: list[float]) -> str:
    low, high = min(values), max(values)
    middle = f"{statistics.median(values):.2f}"
    return middle if f"{low:.2f}" == f"{high:.2f}" else f"{middle} ({low:.2f}–{high:.2f})"


TABLES: Final[dict[str, tuple[str, Callable[[Result], Lines]]]] = {
    "limit": ("limit", limit),
    "peak": ("peak", peak),
    "peers": ("peers", peers),
    "stages": ("stages", stages),
    "idle": ("idle", bounds),
    "overload": ("overload", bounds),
    "half-load": ("half-load", bounds),
    "poisson": ("poisson", poisson),
    "photos": ("photos --photos FOLDER", photos),
    "footprint": ("footprint", bounds),
    "growth": ("growth", bounds),
    "requests": ("growth --parts requests --requests 10000000", bounds),
    "locust": ("locust", locust),
    "locust-500": ("locust --protocols mixed --users 500 --seconds 60", locust),
    "gate": ("gate --accept", gate),
}

SHORT: Final[dict[str, tuple[str, Callable[[Result], Lines]]]] = {
    "peers": (TABLES["peers"][0], best_peers),
    "locust": (TABLES["locust"][0], slowest_users),
    "locust-500": (TABLES["locust-500"][0], slowest_users),
}

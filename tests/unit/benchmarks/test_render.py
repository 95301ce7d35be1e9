"""docs/performance.md says what benchmarks/results say."""

import json
from pathlib import Path

import pytest

from benchmarks.render import rendered
from benchmarks.render_tables import peers

ROOT = Path(__file__).resolve().parents[3]
MACHINE = {"cpu": "C", "cores": 2, "system": "Linux", "python": "3.11", "onnxruntime": "1.0"}
LIMIT = {
    "machine": MACHINE,
    "command": "python -m benchmarks limit",
    "limit": {"engine, batch 32": {"per_s": 1234.5, "cpu_us": 80.0, "shares": [1.0, 1.0]}},
}
TEXT = "before\n<!-- results: limit -->\nold\n<!-- end of results -->\nafter\n"


def test_the_document_is_what_the_results_say() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert rendered(text, ROOT / "benchmarks" / "results") == text, "run python -m benchmarks render"


def test_a_figure_in_the_document_comes_from_the_result(tmp_path: Path) -> None:
    (tmp_path / "limit.json").write_text(json.dumps(LIMIT))
    text = rendered(TEXT, tmp_path)
    assert "| engine, batch 32 | 1,234 | 80 µs | 1.00 |" in text
    assert "C, 2 cores, Linux, Python 3.11, onnxruntime 1.0: `python -m benchmarks limit`" in text
    assert (text.startswith("before\n"), text.endswith("after\n"), "old" in text) == (True, True, False)
    assert rendered(text, tmp_path) == text


def test_what_was_not_measured_says_so(tmp_path: Path) -> None:
    assert "Not measured yet: `python -m benchmarks limit`." in rendered(TEXT, tmp_path)


def test_a_marker_without_a_table_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="<!-- results: speed -->: expected one of footprint"):
        rendered(TEXT.replace("limit", "speed"), tmp_path)


def test_every_peer_has_a_row_and_ours_is_the_median_of_what_was_beside_them() -> None:
    rows = [
        {"column": "grpc", "name": name, "version": f"{name} 1.0", "connections": 32, "per_s": 100.0, "cpu_us": 50.0}
        | {"ours_per_s": ours, "ours_cpu_us": 20.0, "ours_faster": [2.0, 3.0, 4.0], "ours_cpu": [0.4]}
        for name, ours in (("a", 200.0), ("b", 300.0), ("c", 1000.0))
    ]
    lines = peers({"peers": rows, "left_out": {"d, grpc": "it is not installed"}})
    assert "| Shoal | 300 per s | 20 µs |" in lines
    assert "| a (a 1.0) | 100 per s (ours 3.00 times, 2.00–4.00) | 50 µs (ours 0.40 times) |" in lines
    assert lines[-1] == "- d, grpc: it is not installed"

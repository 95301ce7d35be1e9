"""docs/performance.md says what benchmarks/results say."""

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import render
from benchmarks.peer_servers import read_peers
from benchmarks.render import DOCUMENTS, rendered
from benchmarks.render_tables import best_peers, peers, photos, poisson, slowest_users

ROOT = Path(__file__).resolve().parents[3]
MACHINE = {"cpu": "C", "cores": 2, "system": "Linux", "python": "3.11", "onnxruntime": "1.0"}
LIMIT = {
    "machine": MACHINE,
    "command": "python -m benchmarks limit",
    "limit": {
        "engine, batch 32": {"per_s": 1234.5, "cpu_us": 80.0, "load_us": 0.0, "shares": [1.0, 1.0]},
        "binary, 32 images": {"per_s": 1000.0, "cpu_us": 90.0, "load_us": 11.6, "shares": [0.9, 0.7]},
    },
}
TEXT = "before\n<!-- results: limit -->\nold\n<!-- end of results -->\nafter\n"


@pytest.mark.parametrize("document", DOCUMENTS, ids=str)
def test_the_document_is_what_the_results_say(document: Path) -> None:
    text = (ROOT / document).read_text()
    assert "<!-- results: " in text
    assert rendered(text, ROOT / "benchmarks" / "results") == text, "run python -m benchmarks render"


def test_a_figure_in_the_document_comes_from_the_result(tmp_path: Path) -> None:
    (tmp_path / "limit.json").write_text(json.dumps(LIMIT))
    text = rendered(TEXT, tmp_path)
    assert "| engine, batch 32 | 1,234 | 80 µs | – | 1.00 |" in text
    assert "| binary, 32 images | 1,000 | 90 µs | 12 µs | 0.80 (0.70–0.90) |" in text
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


def test_peers_and_columns_that_a_run_was_not_asked_for_are_named() -> None:
    row = {"version": "", "connections": 32, "per_s": 1.0, "cpu_us": 1.0, "ours_per_s": 1.0, "ours_cpu_us": 1.0}
    row |= {"ours_faster": [1.0], "ours_cpu": [1.0]}
    names = [peer.name for peer in read_peers()]
    rows = [row | {"name": name, "column": column} for name in names for column in ("jpeg", "json", "binary", "grpc")]
    absent = [one for one in rows if one["name"] not in {"BentoML", "Flask, gunicorn"}]
    left_out = {"Flask, gunicorn, png": "it does not listen"}
    assert "Not in this run: BentoML." in peers({"peers": absent, "left_out": left_out})
    assert "Not in this run: BentoML; Flask, gunicorn; PNG upload." not in peers({"peers": absent, "left_out": {}})
    assert "Not in this run: Flask, gunicorn; BentoML; PNG upload." in peers({"peers": absent, "left_out": {}})
    assert not any("Not in" in line for line in peers({"peers": rows, "left_out": left_out}))


def test_the_short_table_has_the_fastest_peer_of_each_column() -> None:
    rows = [
        {"column": "png", "name": name, "connections": 32, "per_s": per_s, "ours_per_s": 300.0, "ours_faster": faster}
        for name, per_s, faster in (("slow", 100.0, [3.0]), ("fast", 200.0, [1.4, 1.6]), ("middling", 150.0, [2.0]))
    ]
    rows.append(rows[0] | {"column": "grpc", "connections": 128})
    assert best_peers({"peers": rows})[-2:] == [
        "| PNG upload | 300 per s: 1.50 times fast | – |",
        "| gRPC, unary | – | 300 per s: 3.00 times slow |",
    ]


def test_the_short_table_of_locust_has_the_longest_p99_and_every_failure() -> None:
    rows = [
        {"protocol": protocol, "Request Count": 1000.0, "Failure Count": failed, "99%": p99}
        for protocol, failed, p99 in (("http", 0, 60.0), ("http", 2, 90.0), ("http", 0, 70.0), ("grpc", 0, 200.0))
    ]
    assert slowest_users({"rows": rows})[-2:] == ["| http | 3,000 | 2 | 90 | yes |", "| grpc | 1,000 | 0 | 200 | no |"]


def test_a_short_table_comes_from_the_same_result_and_is_checked_in_every_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"protocol": "http", "Request Count": 5.0, "Failure Count": 0.0, "99%": 60.0}
    (tmp_path / "locust.json").write_text(json.dumps({"machine": MACHINE, "command": "locust", "rows": [row]}))
    documents = [tmp_path / "a.md", tmp_path / "b.md"]
    for document in documents:
        document.write_text(TEXT.replace("limit", "locust short"))
    parser = argparse.ArgumentParser()
    render.add_arguments(parser)
    words = ["--results", str(tmp_path), "--document", *map(str, documents)]
    assert render.run_command(parser.parse_args(words)) == 0
    assert all("| http | 5 | 0 | 60 | yes |" in document.read_text() for document in documents)
    assert render.run_command(parser.parse_args([*words, "--check"])) == 0
    documents[1].write_text(TEXT.replace("limit", "locust short"))
    assert render.run_command(parser.parse_args([*words, "--check"])) == 1
    assert capsys.readouterr().err.startswith(f"{documents[1]} is not what")
    with pytest.raises(ValueError, match="<!-- results: limit short -->: expected one of locust, locust-500, peers"):
        rendered(TEXT.replace("limit", "limit short"), tmp_path)


def test_the_rate_at_random_times_is_the_last_that_held_with_its_spread_and_the_rounds_that_did_not() -> None:
    found = {"rate_per_s": 4850.0, "rates_per_s": [5000.0, 4850.0], "rounds": [{}] * 3, "rounds_failed": 1}
    lines = poisson({"server_cores": 1, "p99 within 15 ms": found | {"shares": [0.5, 0.485]}})
    assert lines[-1] == "| p99 within 15 ms | 4,850 per s (4,850–5,000) | 1 of 3 | 0.49 (0.48–0.50) |"
    found |= {"rate_per_s": 0.0, "rates_per_s": [], "rounds_failed": 3, "shares": []}
    assert poisson({"server_cores": 1, "p99 within 15 ms": found})[-1] == "| p99 within 15 ms | 0 per s | 3 of 3 | 0 |"


def test_an_old_result_that_names_a_rate_never_tried_is_read_by_its_probes() -> None:
    tried = [(6000.0, 31.5, True), (5343.0, 13.1, True), (5400.0, 9.0, False), (5343.0, 31.9, True)]
    probes = [{"rate_per_s": rate, "p99_ms": p99, "valid": valid} for rate, p99, valid in tried]
    lines = poisson({"server_cores": 1, "p99 within 15 ms": {"probes": probes, "rate_per_s": 5183.0, "shares": [0.44]}})
    assert lines[-1] == "| p99 within 15 ms | 5,343 per s | not counted | 0.44 |"


def test_photographs_tell_how_each_server_was_started() -> None:
    row = {"per_s": 100.0, "cpu_us": 5000.0, "ours_faster": [1.0, 1.2]}
    lines = photos({"photos": {"Shoal": row}, "settings": {"Shoal": "--max-batch-rows 4", "mosec": "PEER_BATCH=4"}})
    assert lines[-2:] == ["- Shoal: `--max-batch-rows 4`", "- mosec: `PEER_BATCH=4`"]
    assert photos({"photos": {"Shoal": row}})[-1] == "| Shoal | 100 per s, 5,000 µs | 1.10 times, 1.00–1.20 |"

"""What `python -m benchmarks classify-many` compares: every way gets an answer to everything, and tells what failed."""

from pathlib import Path

import pytest

from benchmarks.classify_many_ways import OURS, RAW, Load, measure
from benchmarks.pictures import golden_pictures, newest_bundle
from benchmarks.server_process import Address

pytestmark = pytest.mark.slow  # starts from a server process


@pytest.mark.parametrize("way", [*RAW, *OURS])
def test_a_way_counts_what_failed(way: str, server: Address, root: Path) -> None:
    pictures = golden_pictures(newest_bundle(root / "models"))
    load = Load(server.grpc, pictures.model, pictures.files, 300)
    measured = measure((RAW | OURS)[way], load)
    assert measured["failed"] == 0
    assert measured["per_s"] > 0
    if way in RAW:
        assert measure((RAW | OURS)[way], load._replace(model="nope", total=256))["failed"] == 256

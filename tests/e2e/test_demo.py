import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Make = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_the_demo_serves_what_export_verified(run_make: Make, tmp_path: Path) -> None:
    done = run_make("demo", f"WORK={tmp_path / 'demo'}")
    assert done.returncode == 0, done.stdout + done.stderr
    for variant in ("float32", "int8"):
        for way in ("JSON", "upload", "gRPC"):
            assert f"{variant} by {way}: " in done.stdout
    variants = re.findall(r"^(\S+) by JSON: ", done.stdout, re.MULTILINE)  # int8-amx too, where it is the faster
    assert done.stdout.count(" equals the ") == 3 * len(variants)
    assert "IS NOT" not in done.stdout

"""The models and the server that TensorFlow Serving's protocol is tested on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from tests.wire.bundles import write_bundle
from tests.wire.server_process import ServerProcess, run_server
from tests.wire.v2_models import write_models

SLOW = 500  # a batch of this much work takes some ten milliseconds


@contextmanager
def run_tf_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A server of `grey` (versions 1 and 3, and 2 that is damaged), `slow` and the models of `v2_models`."""
    models = tmp_path_factory.mktemp("models")
    write_bundle(models, "grey", 1)
    write_bundle(models, "grey", 3)
    broken = write_bundle(models, "grey", 2)
    (broken / "model.onnx").write_bytes(b"damaged")
    write_bundle(models, "slow", 1, work=SLOW)
    write_models(models)
    limits = ("--max-body-bytes", "200000", "--latency-budget-ms", "5000", "--versions", "all")
    with run_server(models, tmp_path_factory.mktemp("server"), *limits, "--default-model", "grey") as process:
        yield process
        assert "Traceback" not in process.log


def best(rows: Any) -> list[int]:
    """The class that each row gives the highest score."""
    return [int(np.argmax(row)) for row in rows]

"""The model behind BentoML, without batching (which takes another process between), a process for each core."""

import os
from pathlib import Path
from typing import Annotated, Any

import bentoml  # type: ignore[import-not-found]  # not installed where types are checked

from benchmarks.peers.classifier import Classifier


@bentoml.service(workers=len(os.sched_getaffinity(0)), logging={"access": {"enabled": False}})
class Classify:
    """One API; a body is the input itself, as BentoML's "root input"."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    @bentoml.api(route="/inference")  # type: ignore[untyped-decorator]  # not installed where types are checked
    def classify(self, body: Annotated[Path, bentoml.validators.ContentType("application/octet-stream")], /) -> Any:
        """Classifies one body, which BentoML has put into a file."""
        return self._classifier.classify([self._classifier.read(body.read_bytes())])[0]

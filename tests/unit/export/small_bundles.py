"""Sound bundles in a millisecond: a manifest and files that it vouches for, with no graph in them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from export import bundle
from protos import bundle_pb2


def write_small(models: Path, name: str, version: int, *, report: dict[str, Any] | None = None, **fields: Any) -> Path:
    """A version whose only variant is some bytes.

    Args:
        models: Folder of bundles.
        name: Of the model.
        version: Its number.
        report: `export.json`, none where it is not given.
        fields: Fields of the manifest that differ.
    """
    folder = models / name / str(version)
    folder.mkdir(parents=True)
    graph = f"the graph of version {version}".encode()
    (folder / "model.onnx").write_bytes(graph)
    described = bundle_pb2.Variant(
        name="float32",
        file="model.onnx",
        sha256=hashlib.sha256(graph).hexdigest(),
        size_bytes=len(graph),
        accuracy=0.9 + version / 1000,
        agreement=1.0,
        images_per_s=1000.0 * version,
    )
    manifest = bundle_pb2.Manifest(
        schema=1, name=name, version=version, labels=["cat", "dog"], variants=[described], parameters=100
    )
    manifest.MergeFrom(bundle_pb2.Manifest(**fields))
    (folder / "manifest.json").write_bytes(bundle.manifest_json(manifest))
    if report is not None:
        (folder / "export.json").write_text(json.dumps(report))
    return folder

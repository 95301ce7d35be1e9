"""The list of packages: a CycloneDX document of what is installed, the same every time."""

import importlib.metadata
import json

from export import sbom
from export.manifest import TOOLS


def test_the_tools_and_what_they_require_are_listed() -> None:
    document = sbom.build_sbom("m", 3, TOOLS)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["name"] == "m"
    found = {one["name"]: one["version"] for one in document["components"]}
    assert found["onnxruntime"] == importlib.metadata.version("onnxruntime")
    assert found["protobuf"] == importlib.metadata.version("protobuf")  # no tool of ours, but onnx requires it
    assert "pytest" not in found  # here, but not behind a bundle


def test_every_reference_is_that_of_a_component() -> None:
    document = sbom.build_sbom("m", 3, TOOLS)
    known = {one["bom-ref"] for one in document["components"]}
    assert len(known) == len(document["components"])
    for dependency in document["dependencies"]:
        assert {dependency["ref"], *dependency["dependsOn"]} <= known


def test_the_same_packages_give_the_same_bytes() -> None:
    one, other = (json.dumps(sbom.build_sbom("m", 3, tools)) for tools in (TOOLS, tuple(reversed(TOOLS))))
    assert one == other


def test_what_is_not_installed_is_passed_over() -> None:
    assert len(sbom.build_sbom("m", 1, ["no-such-package"])["components"]) == 1  # Python itself

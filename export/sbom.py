"""The packages that made a bundle, as a CycloneDX 1.6 document (https://cyclonedx.org/docs/1.6/json/).

The export's own tools and everything installed that they require, from the packages' metadata. Written here and not by
cyclonedx-python-lib: it is one list, and the same packages have to give the same bytes, so there is neither a serial
number nor a time in it.
"""

import importlib.metadata
import platform
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA: Final = re.compile(r";.*\bextra\b")


def build_sbom(model: str, version: int, tools: Sequence[str]) -> dict[str, Any]:
    """Lists the packages behind an export.

    Args:
        model: The model's name.
        version: Of the bundle.
        tools: Names of packages; those that are not installed are passed over.

    Returns:
        What `sbom.cdx.json` holds.
    """
    found = _closure(tools)
    python = {"type": "platform", "name": "python", "version": platform.python_version(), "bom-ref": "python"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "machine-learning-model", "name": model, "version": str(version)}},
        "components": [python, *(_component(found[name]) for name in sorted(found))],
        "dependencies": [
            {"ref": _purl(found[name]), "dependsOn": sorted(_purl(found[one]) for one in _required(found[name], found))}
            for name in sorted(found)
        ],
    }


def _closure(tools: Sequence[str]) -> dict[str, importlib.metadata.Distribution]:
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [_canonical(tool) for tool in tools]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another platform, or of a build that is not installed here
        waiting += _requirements(found[name])
    return found


def _requirements(distribution: importlib.metadata.Distribution) -> list[str]:
    wanted = [line for line in distribution.requires or () if not _EXTRA.search(line)]
    return [_canonical(match[0]) for match in map(_NAME.match, wanted) if match]


def _required(distribution: importlib.metadata.Distribution, found: Iterable[str]) -> set[str]:
    return set(_requirements(distribution)).intersection(found)


def _component(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    metadata = distribution.metadata
    component: dict[str, Any] = {
        "type": "library",
        "name": _canonical(metadata["Name"]),
        "version": distribution.version,
        "purl": _purl(distribution),
        "bom-ref": _purl(distribution),
    }
    licences = metadata.get_all("License-Expression")
    return component | ({"licenses": [{"expression": licences[0]}]} if licences else {})


def _purl(distribution: importlib.metadata.Distribution) -> str:
    return f"pkg:pypi/{_canonical(distribution.metadata['Name'])}@{distribution.version}"


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

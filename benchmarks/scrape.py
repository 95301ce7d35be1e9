"""Reads a server's metrics."""

import re
import urllib.request

from benchmarks.server_process import Address


def scrape(address: Address) -> str:
    """The metrics of all workers, in Prometheus's text format."""
    with urllib.request.urlopen(f"{address.http}/metrics", timeout=10) as response:  # noqa: S310  our own server
        return str(response.read().decode())


def sample(text: str, name: str, **labels: str) -> float:
    """The sum of all values of a sample that has these labels.

    Args:
        text: An exposition.
        name: The sample.
        labels: Those that must be equal.
    """
    total = 0.0
    for found in re.finditer(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE):
        if all(f'{key}="{value}"' in (found[1] or "") for key, value in labels.items()):
            total += float(found[2])
    return total

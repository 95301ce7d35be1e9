"""The tables of docs/training.md and docs/models.md say what the code does."""

import ast
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from training.augmentation import USUAL

DOCS = Path(__file__).parents[3] / "docs"


def rows(page: str, heading: str) -> list[list[str]]:
    """Returns the cells of the lines of the table under a heading."""
    part = (DOCS / page).read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if line[:3] == "| `"]


def value(text: str) -> Any:
    return ast.literal_eval(text) if re.match(r"[\d\[]", text) else text


@pytest.mark.slow
@pytest.mark.parametrize("page", ["training.md", "models.md"])
def test_the_settings_of_cnn_have_these_defaults(page: str) -> None:
    from training.models.cnn import CnnSettings  # noqa: PLC0415 (Keras is slow to import)

    told: dict[str, Any] = {}
    for names, values, _ in rows(page, "## The model `cnn`" if page == "training.md" else "## `cnn`"):
        each = zip(re.findall(r"`(.+?)`", names), re.findall(r"`(.+?)`", values), strict=True)
        told |= {name: value(text) for name, text in each}
    plain = {name: list(one) if isinstance(one, tuple) else one for name, one in asdict(CnnSettings()).items()}
    assert told == plain


def test_augmentations_have_these_usual_strengths() -> None:
    assert {name.strip("`"): float(usual) for name, usual, _ in rows("training.md", "### Augmentation")} == USUAL

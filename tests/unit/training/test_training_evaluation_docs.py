"""The commands and names of docs/evaluation.md are those of the program."""

import re
import shlex
from pathlib import Path

import pytest

from training import contenders
from training.cli import parser

PAGE = (Path(__file__).parents[3] / "docs" / "evaluation.md").read_text()
COMMANDS = re.findall(r"^    python -m training (.+?)(?:  .*)?$", PAGE, flags=re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    parsed = parser().parse_args(shlex.split(line))
    for contender in contenders.parse(getattr(parsed, "models", [])):
        contender.settings({"data": "digits"}, seed=0)


def test_the_page_has_commands() -> None:
    assert {line.split()[0] for line in COMMANDS} == {"evaluate", "explain", "compare"}


@pytest.mark.slow
def test_every_number_it_names_is_measured() -> None:
    import numpy as np  # noqa: PLC0415

    from training import metrics  # noqa: PLC0415 (scikit-learn is slow to import)

    report = metrics.report(np.eye(2, dtype=np.float32), np.array([0, 1]), ("a", "b"))
    named = set(re.findall(r"`test\.(\w+)", PAGE))
    assert named == set(report) - {"rows"}

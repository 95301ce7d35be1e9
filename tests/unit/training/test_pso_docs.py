"""The Python of docs/tuning.md runs."""

import re
from pathlib import Path

import optuna
import pytest

PAGE = Path(__file__).parents[3] / "docs" / "tuning.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_the_examples_of_the_tuning_page_run(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names: dict[str, object] = {}
    exec(compile(BLOCKS[number], f"{PAGE.name}, block {number + 1}", "exec"), names)
    study = names["study"]
    assert isinstance(study, optuna.Study)
    if study.trials:
        assert study.best_value < 1.0


def test_the_tuning_page_has_examples() -> None:
    assert len(BLOCKS) >= 2

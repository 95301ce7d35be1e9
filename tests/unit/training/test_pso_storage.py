"""Opening the database of a study."""

from pathlib import Path

import optuna
import pytest
import sqlalchemy

from training.errors import TrainingError
from training.pso_storage import open_storage


def test_sqlite_is_set_up_for_several_writers(tmp_path: Path) -> None:
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    with storage.engine.connect() as connection:
        settings = [
            connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    storage.engine.dispose()
    assert settings == ["wal", 1, 60_000]


def test_what_one_opening_writes_the_next_one_reads(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    optuna.create_study(storage=open_storage(url), study_name="s").enqueue_trial({"a": 1})
    again = optuna.load_study(storage=open_storage(url), study_name="s")
    assert again.ask().suggest_int("a", 0, 3) == 1


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (
            "sqlite:////nowhere/at/all/study.db",
            "a database at sqlite:////nowhere/at/all/study.db, but .*unable to open",
        ),
        ("no url", "a database at no url, but .*parse"),
        ("nosuch://me:secret@host/name", "a database at nosuch://…@host/name, but"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_clear_error(url: str, says: str) -> None:
    with pytest.raises(TrainingError, match=says) as raised:
        open_storage(url)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_no_database_is_a_clear_error_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes, not a database\n" * 50)
    before = file.read_bytes()
    with pytest.raises(TrainingError, match="file is not a database"):
        open_storage(f"sqlite:///{file}")
    assert file.read_bytes() == before

"""What a search loses on its way: a finalist that diverges, the disk, the database. The rest is kept and told."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from tests.unit.training.finished_run import FACTS
from training import runs
from training.errors import Diverged, TrainingError
from training.settings import TrainSettings
from training.tuning import space
from training.tuning import study as studies
from training.tuning.crew import Crew
from training.tuning.settings import Job, TuneSettings

SPACE = "learning_rate: {type: float, low: 0.001, high: 0.1}\n"
pytestmark = pytest.mark.slow  # TensorFlow takes seconds to import

Rates = list[float]
TrainBest = Callable[..., Any]


def space_file(folder: Path) -> Path:
    file = folder / "space.yaml"
    file.write_text(SPACE)
    return file


@pytest.fixture
def train_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainBest:
    """Returns a function that trains the best of four trials in full, less those of the given rates, which diverge."""
    from training.tuning import finals  # noqa: PLC0415 (Keras)

    def call(best: int, diverging: Rates) -> tuple[list[float], Rates]:
        began: Rates = []

        def train(settings: TrainSettings, _data: Any) -> runs.Run:
            assert settings.learning_rate is not None
            began.append(settings.learning_rate)
            if settings.learning_rate in diverging:
                raise Diverged("expected a finite loss, received nan in epoch 9")
            with runs.draft(settings.runs, settings.run_name) as folder:
                validation = {"accuracy": 1 - settings.learning_rate, "loss": 1.0}
                runs.write_json(folder / runs.METRICS, {"validation": validation})
                return runs.publish(folder, FACTS)

        def settings_of(base: TrainSettings, values: dict[str, Any], _data: Any) -> TrainSettings:
            return base.model_copy(update=values)

        monkeypatch.setattr(finals, "train", train)
        monkeypatch.setattr(finals, "finished_run", lambda *_: None)
        monkeypatch.setattr(finals, "settings_of", settings_of)
        file = space_file(tmp_path)
        settings = TrainSettings.parse({"runs": tmp_path / "runs", "model": "mlp"})
        job = Job(settings, TuneSettings.parse({"best": best, "study": "s"}), space.read(file))
        study = optuna.create_study(direction="maximize")
        for rate in (0.01, 0.02, 0.03, 0.04):
            study.add_trial(
                optuna.trial.create_trial(
                    params={"learning_rate": rate},
                    distributions={"learning_rate": optuna.distributions.FloatDistribution(0.001, 0.1)},
                    value=1 - rate,
                )
            )
        made = finals.train_best(job, study, data=None)  # type: ignore[arg-type]  # nothing here looks at the data
        return [one.trial.params["learning_rate"] for one in made], began

    return call


def test_the_next_best_stands_in_for_a_finalist_that_diverges(
    train_best: TrainBest, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train_best(2, []) == ([0.01, 0.02], [0.01, 0.02])
    assert train_best(2, [0.01]) == ([0.02, 0.03], [0.01, 0.02, 0.03])
    assert "trial 0 diverged in full, the next best stands in for it: expected a finite loss" in capsys.readouterr().out
    assert train_best(9, [0.01, 0.04]) == ([0.02, 0.03], [0.01, 0.02, 0.03, 0.04])


def test_a_search_whose_every_trial_diverges_in_full_is_told(train_best: TrainBest) -> None:
    with pytest.raises(TrainingError, match="each of the 4 complete trials diverged in full"):
        train_best(1, [0.01, 0.02, 0.03, 0.04])


def tune(tmp_path: Path, **tuning: Any) -> None:
    from training.tuning.tune import tune  # noqa: PLC0415 (SciPy and the like)

    settings = TrainSettings.parse({"runs": tmp_path / "runs", "model": "mlp"})
    tune(settings, TuneSettings.parse({"trials": 1, "best": 0, "space": str(space_file(tmp_path)), **tuning}))


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(runs, "write_json", full)


def test_ctrl_c_on_a_full_disk_stays_a_ctrl_c(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any) -> None:
        fill_the_disk(monkeypatch)
        raise KeyboardInterrupt

    monkeypatch.setattr(Crew, "run", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path)
    shown = capsys.readouterr().out
    assert "note: the results so far could not be written ([Errno 28] No space left on device)" in shown
    assert shown.endswith("the same command goes on\n")


def test_results_on_a_full_disk_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Crew, "run", lambda *_: fill_the_disk(monkeypatch))
    with pytest.raises(TrainingError, match=r"files in .*digits-mlp-pso \(.*No space left on device\); make room"):
        tune(tmp_path)


def test_a_database_that_is_lost_meanwhile_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def lose(crew: Crew, _show: Any) -> None:
        studies.close(crew._study)
        (tmp_path / "database").rename(tmp_path / "elsewhere")
        crew._study.get_trials(deepcopy=False)

    monkeypatch.setattr(Crew, "run", lose)
    (tmp_path / "database").mkdir()
    with pytest.raises(TrainingError, match=r"the study's database .* failed \(.*unable to open database file\)"):
        tune(tmp_path, storage=f"sqlite:///{tmp_path}/database/study.db")
    assert "note: the results so far could not be written" in capsys.readouterr().out

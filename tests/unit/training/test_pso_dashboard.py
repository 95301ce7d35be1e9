"""optuna-dashboard reads a study of the swarm, where it is installed (docs/tuning.md)."""

import json
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import pytest

from training.pso import PSOSampler
from training.pso_storage import open_storage

pytestmark = pytest.mark.slow  # a database


def test_the_dashboard_shows_study_trials_and_importances(tmp_path: Path) -> None:
    dashboard = pytest.importorskip("optuna_dashboard", reason="pip install optuna-dashboard tests this")
    storage = open_storage(f"sqlite:///{tmp_path / 'study.db'}")
    study = optuna.create_study(storage=storage, study_name="swarm", direction="maximize", sampler=PSOSampler(seed=1))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) + trial.suggest_int("n", 1, 4), n_trials=12)
    application = dashboard.wsgi(storage)

    def answer(path: str) -> Any:
        environ: dict[str, Any] = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        statuses: list[str] = []
        body = b"".join(application(environ, lambda status, *_: statuses.append(status)))
        assert statuses == ["200 OK"]
        return json.loads(body)

    (summary,) = answer("/api/studies")["study_summaries"]
    assert (summary["study_name"], summary["directions"]) == ("swarm", ["maximize"])
    shown = answer(f"/api/studies/{summary['study_id']}")
    assert [trial["values"] for trial in shown["trials"]] == [trial.values for trial in study.trials]
    assert [trial["number"] for trial in shown["best_trials"]] == [study.best_trial.number]
    (importances,) = answer(f"/api/studies/{summary['study_id']}/param_importances")["param_importances"]
    assert {one["name"] for one in importances} == {"x", "n"}
    assert sum(one["importance"] for one in importances) == pytest.approx(1)

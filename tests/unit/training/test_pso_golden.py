"""The swarm's paths, as they were when somebody last looked at them.

A change of the algorithm that is meant shows here as a change of `pso_paths.json`, to be looked at and renewed with

    SHOAL_UPDATE_GOLDEN=1 python -m pytest tests/unit/training/test_pso_golden.py
"""

import json
import os
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from training.pso import Coefficients, PSOSampler
from training.pso_swarm import FLIGHT_KEY

GOLDEN = Path(__file__).with_name("pso_paths.json")
SPACE: dict[str, BaseDistribution] = {
    "filters": IntDistribution(8, 128, log=True),
    "layers": IntDistribution(1, 5),
    "learning_rate": FloatDistribution(1e-4, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "optimizer": CategoricalDistribution(["adam", "sgd", "rmsprop"]),
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "ring-absorb": {"topology": "ring", "boundary": "absorb", "population": 4, "design": 4},
    "constrained": {},
    "constriction-reflect": {"coefficients": Coefficients.constriction(), "boundary": "reflect"},
}


def path_of(name: str) -> list[dict[str, Any]]:
    settings = SAMPLERS[name]
    study = optuna.create_study(sampler=PSOSampler(seed=7, search_space=SPACE, **settings))
    flying = []
    for number in range(24):  # three in flight, finishing out of order, one in eight failing
        flying.append(study.ask(SPACE))
        if len(flying) == 3:
            trial = flying.pop(number % 3)
            params = trial.params
            value = abs(params["dropout"] - 0.4) + abs(params["learning_rate"] - 0.003) * 10 + params["layers"] / 10
            failed = number % 8 == 7
            if name == "constrained":  # some four in five are refused at first
                trial.set_constraint("cost", params["filters"] * params["layers"] / 60 - 1)
            study.tell(trial, None if failed else value, state=TrialState.FAIL if failed else None)
    return [{"params": trial.params, **trial.system_attrs[FLIGHT_KEY]} for trial in study.trials]


def as_text(known: dict[str, list[Any]]) -> str:
    """JSON with a line per trial, so that a difference can be read."""
    studies = []
    for name in sorted(known):
        trials = ",\n".join(json.dumps(trial, sort_keys=True) for trial in known[name])
        studies.append(f"{json.dumps(name)}: [\n{trials}\n]")
    return "{\n" + ",\n".join(studies) + "\n}\n"


def flat(paths: Any) -> list[Any]:
    if isinstance(paths, dict):
        return [leaf for key in sorted(paths) for leaf in (key, *flat(paths[key]))]
    return [leaf for item in paths for leaf in flat(item)] if isinstance(paths, list) else [paths]


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_swarm_takes_the_paths_it_took(name: str) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    paths = path_of(name)
    if os.environ.get("SHOAL_UPDATE_GOLDEN"):
        known = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
        GOLDEN.write_text(as_text(known | {name: paths}))
    expected = flat(json.loads(GOLDEN.read_text())[name])
    for seen, wanted in zip(flat(paths), expected, strict=True):
        assert seen == (pytest.approx(wanted, rel=1e-4, abs=2e-6) if isinstance(wanted, float) else wanted)

"""Finished runs in MLflow, for those who compare there: `--mlflow`, or `--mlflow http://tracking:5000`.

MLflow is an extra, `shoal[mlflow]`; it is imported when it is asked for. A run is logged when it is finished, as a
whole, so one that was cut off and continued appears once.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from training.errors import TrainingError
from training.loop import Epoch
from training.runs import Run


def check(uri: str) -> None:
    """Refuses `--mlflow` before anything is trained where MLflow is missing.

    Raises:
        TrainingError: It is asked for and not installed.
    """
    if uri and find_spec("mlflow") is None:
        raise TrainingError('--mlflow: expected MLflow to be installed, it is not; pip install "shoal[mlflow]"')


def log(uri: str, run: Run, settings: Mapping[str, Any], history: list[Epoch]) -> None:
    """Logs a finished run: settings, a value per epoch, the test figures, and where the run folder is.

    Args:
        uri: Of the tracking server or store; a path is a folder.
        run: The run.
        settings: Parameters.
        history: Of the training.

    Raises:
        TrainingError: MLflow refuses it; the run itself is not touched.
    """
    if "://" not in uri:
        # MLflow 3 keeps folders readable but asks for this word before it writes one; a database needs all of MLflow.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = import_module("mlflow")  # only who asks for it has it

    try:
        mlflow.set_tracking_uri(uri if "://" in uri else Path(uri).resolve().as_uri())
        mlflow.set_experiment(run.name)
        with mlflow.start_run(run_name=f"{run.name}/{run.number}"):
            mlflow.log_params(dict(settings))
            for line in history:
                figures = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "duration_s")
                mlflow.log_metrics({name: getattr(line, name) for name in figures}, step=line.epoch)
            test = run.metrics()["test"]
            mlflow.log_metrics({"test_accuracy": test["accuracy"], "test_loss": test["loss"]})
            mlflow.set_tag("run_folder", str(run.path.resolve()))
    except (mlflow.exceptions.MlflowException, OSError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TrainingError(f"the run {run.path} is finished, but MLflow at '{uri}' refuses it: {reason}") from error

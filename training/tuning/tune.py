"""One search, from settings to a run: check → study → workers → the best in full → results."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError

from training import console, models, runs
from training.data import quarantine
from training.data.loading import load
from training.data.reading import survey
from training.data.sources import catalogue_of
from training.errors import TrainingError
from training.pso_storage import first_line
from training.quiet import quiet_import
from training.settings import TrainSettings
from training.tuning import figures, progress, results, space
from training.tuning import study as studies
from training.tuning.crew import Crew
from training.tuning.settings import Job, TuneSettings


@dataclass(frozen=True, slots=True)
class Tuned:
    """What came of a search.

    Args:
        results: The file of results.
        run: The best one, trained in full; None if none was asked for or no trial was complete.
    """

    results: Path
    run: runs.Run | None


def tune(settings: TrainSettings, tuning: TuneSettings) -> Tuned:
    """Searches, or goes on with a search, and trains the best in full.

    Args:
        settings: What holds for all trainings.
        tuning: How to search.

    Raises:
        TrainingError: The input is not usable, or workers cannot work. The study is as usable as before.
        KeyboardInterrupt: Ctrl-C; the study is usable, its results are written.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    models.check(settings.model)
    found = space.read(Path(tuning.space) if tuning.space else space.default_file(settings.model))
    job = Job(settings, tuning, found)
    catalogue, _ = quarantine.apply(catalogue_of(settings.data), settings.quarantine)
    fingerprint = survey(catalogue).fingerprint
    with quiet_import():
        architecture = models.get(settings.model)
    space.check(found, settings, architecture.settings)
    with _losses_told(job):
        study = studies.open_study(job, fingerprint)
        try:
            _search(job, study)
            return _finished(job, study)
        finally:
            studies.close(study)


@contextlib.contextmanager
def _losses_told(job: Job) -> Iterator[None]:
    """Tells in a line when the database or the disk fails meanwhile.

    Raises:
        TrainingError: In place of what the storage or the system raised.
    """
    try:
        yield
    except StorageInternalError as error:
        raise TrainingError(
            f"the study's database {job.storage_shown} failed ({first_line(error)}); see to it, then the same command"
            " goes on"
        ) from error
    except OSError as error:
        raise TrainingError(
            f"the search cannot use its files in {job.folder} ({error}); make room, then the same command goes on, or"
            " choose another folder by --runs"
        ) from error


def _search(job: Job, study: optuna.Study) -> None:
    before = study.get_trials(deepcopy=False)
    lost = studies.give_up_lost(study)
    tuning = job.tuning
    console.say(
        f"study  {job.study} in {job.storage_shown}: {tuning.sampler}, {len(job.space.parameters)} parameters of"
        f" {job.space.source}, trials of {tuning.proxy_epochs} epochs on {tuning.fraction:.0%} of the training split"
    )
    if studies.counted(before):
        console.say(
            f"       going on after {studies.counted(before) - lost} trials; {lost} were lost with their workers"
        )
    if not studies.is_open(study.get_trials(deepcopy=False), job):
        return
    try:
        with progress.shown(study, job) as show:
            Crew(job, study).run(show)
    except BaseException:
        _leave(job, study)
        raise


def _leave(job: Job, study: optuna.Study) -> None:
    """Writes the results so far, where that is possible: why the search ends is told by whoever ended it."""
    try:
        file = results.write(job, study)
        figures.write(job, study)
        console.say(f"{progress.headline(study.get_trials(deepcopy=False), job)}; results so far in {file}")
    except (OSError, StorageInternalError) as error:
        console.say(f"note: the results so far could not be written ({first_line(error)})")
    console.say("the same command goes on")


def _finished(job: Job, study: optuna.Study) -> Tuned:
    trials = study.get_trials(deepcopy=False)
    console.say(progress.headline(trials, job))
    file = results.write(job, study)
    drawn = figures.write(job, study)
    console.say(f"{len(drawn)} figures and {file.name} in {file.parent}")
    if not progress.best(trials):
        _refuse_nothing(job, trials)
        return Tuned(file, None)
    if not job.tuning.best:
        return Tuned(file, None)
    with quiet_import():
        from training.tuning import finals  # noqa: PLC0415 (Keras, which a search that only waits for workers needs not)

    made = finals.train_best(job, study, load(job.settings))
    run = finals.publish(job, made)
    results.write(job, study, [results.final(one.trial, one.run) for one in made], f"{run.name}/{run.number}")
    return Tuned(file, run)


def _refuse_nothing(job: Job, trials: list[optuna.trial.FrozenTrial]) -> None:
    """Says why there is no best trial, where the space is to blame.

    Raises:
        TrainingError: Nothing was fast enough, or nothing could be trained.
    """
    outcomes = [studies.outcome(trial) for trial in trials]
    if studies.TOO_SLOW in outcomes:
        cheapest = min(trial.user_attrs.get(studies.US_PER_IMAGE, float("inf")) for trial in trials)
        raise TrainingError(
            f"--max-us-per-image: {outcomes.count(studies.TOO_SLOW)} candidates were slower than"
            f" {job.tuning.max_us_per_image:g} µs, the fastest took {cheapest:.1f}; allow more or give a --space of"
            " smaller models"
        )
    if studies.REFUSED in outcomes:
        refused = next(trial for trial in trials if studies.outcome(trial) == studies.REFUSED)
        raise TrainingError(f"no trial could be trained; the first: {refused.user_attrs.get(studies.REASON)}")

"""A worker of a search whose trainings take no time: `python tune_worker.py <pickled job> <folder> [stall]`."""

import pickle
import sys
import time
from pathlib import Path

from training.tuning import study as studies
from training.tuning import worker


def main() -> None:
    job = pickle.loads(Path(sys.argv[1]).read_bytes())
    folder = Path(sys.argv[2])
    place = worker.Place(folder, folder / "log", folder / "lock", threads=1, gpu=None, until_s=float("inf"))
    study = studies.join_study(job)
    while (trial := worker._asked(study, job, place)) is not None:
        with worker._heartbeat(study, trial):
            values = job.space.suggest(trial)
            if "stall" in sys.argv:
                sys.stdout.write("stalled\n")
                sys.stdout.flush()
                time.sleep(600)
            study.tell(trial, 1 - abs(values["learning_rate"] - 0.01))
            sys.stdout.write(f"{trial.number}\n")
            sys.stdout.flush()


main()

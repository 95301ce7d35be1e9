"""What a user can get wrong, told in one line.

    ShoalError
    └── TrainingError     (settings, data, runs)
        └── Diverged      (the loop: nothing of the run is worth keeping)

The process that meets one exits with code 2.
"""

from server.errors import ShoalError


class TrainingError(ShoalError):
    """The settings, the data or a run folder are not usable: expected, received, what to do."""


class Diverged(TrainingError):
    """The loss became infinite or no number; going on from a checkpoint would end the same way."""

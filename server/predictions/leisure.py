"""Tells when the processor has nothing better to do.

    writer ──?──▶ a child at the lowest priority (SCHED_IDLE) ──!──▶ writer does a little, at the ordinary one

The child answers once a core has nothing else to run: at once on an idle machine, in the gaps between requests on a
busy one, about once a second on a saturated one. The work itself is not done at that priority: whoever is held up for a
second with the database's lock, or the interpreter's, holds up whoever waits for it.
"""

import os
import select

_ASK, _ANSWER = b"?", b"!"


class Leisure:
    """See the module. Make it before there are threads: it forks."""

    def __init__(self) -> None:
        asked, self._ask = os.pipe()
        self._answers, answers = os.pipe()
        self._child = os.fork()
        if not self._child:
            _idle(asked, answers)
        os.close(asked)
        os.close(answers)
        self._is_asked = False

    def wait(self, within_s: float) -> bool:
        """Waits until there is time to spare; whether there is.

        Args:
            within_s: How long at most.

        Raises:
            BrokenPipeError: The child has been killed.
        """
        if not self._is_asked:
            os.write(self._ask, _ASK)
            self._is_asked = True
        if not select.select([self._answers], [], [], within_s)[0]:
            return False
        if not os.read(self._answers, 1):
            raise BrokenPipeError("the child that waits for spare time has ended")
        self._is_asked = False
        return True

    def close(self) -> None:
        """Ends the child."""
        os.close(self._ask)
        os.close(self._answers)
        os.waitpid(self._child, 0)


def _idle(asked: int, answers: int) -> None:
    """The child's life: it ends with the pipe, which it alone still has open: the writer's lock is not its own."""
    try:
        low, high = sorted((asked, answers))
        for first, last in ((0, low), (low + 1, high), (high + 1, os.sysconf("SC_OPEN_MAX"))):
            os.closerange(first, last)
        try:
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        except (AttributeError, OSError):  # not on this system, or not allowed here: the next best
            os.nice(19)
        while os.read(asked, 1):
            os.write(answers, _ANSWER)
    finally:
        os._exit(0)  # whatever the parent has open or registered is the parent's

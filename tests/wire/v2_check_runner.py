"""Runs the checks of one module as their names come in, a line each, and answers with a line of JSON each.

Started by `v2_clients`, in the clients' environment.
"""

import importlib
import json
import sys
import traceback
from typing import Any


def main(module_name: str, *addresses: str) -> None:
    """Imports the module, has it connect, and runs what is asked for until there is nothing more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a check's own output must not get among the answers
    module = importlib.import_module(module_name)
    module.connect(*addresses)
    for line in sys.stdin:
        answer: dict[str, Any]
        try:
            answer = {"value": getattr(module, line.strip())()}
        except Exception:  # noqa: BLE001  whatever it is, it is the check's result
            answer = {"failure": traceback.format_exc()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""`python -m benchmarks`: every measurement and the demo, by name."""

import argparse
import sys

from benchmarks import (
    accuracy,
    balance,
    classify_many,
    crashes,
    demo,
    idle,
    limit,
    locust_run,
    overload,
    peak,
    peers_run,
    perf_analyzer,
    prediction_log,
    reloads,
    retrain,
    rollback,
    stops,
    training_speed,
)

COMMANDS = {
    "demo": (demo, "train, export, serve and classify, and compare the served accuracy with the verified one"),
    "locust": (locust_run, "100 locust users by HTTP and by gRPC: no failure, p99 < 200 ms"),
    "accuracy": (accuracy, "a data set's own files through a server, by JSON, upload and gRPC, against Keras"),
    "retrain": (retrain, "make train export beside a server under locust: failures, and when the new version answers"),
    "classify-many": (classify_many, "5,000 single pictures by the client package, against the peak by raw stubs"),
    "training-speed": (training_speed, "images per second of training against a plain model.fit on NumPy arrays"),
    "idle": (idle, "one request at a time: what is added to the bare ONNX Runtime call"),
    "peak": (peak, "the most that HTTP answers, by payload and connections, and its CPU time; hot path and aiohttp"),
    "limit": (limit, "images per second through the server, as a share of what the bare engine does on the same cores"),
    "peers": (peers_run, "uploads by other servers and by ours, by turns on the same cores (make bench-peers)"),
    "prediction-log": (prediction_log, "what the prediction log costs at full load, and what stops and restarts lose"),
    "perf-analyzer": (perf_analyzer, "Triton's own load generator, by HTTP and gRPC in every way it knows: no failure"),
    "overload": (overload, "twice what the server can do: goodput, latency of accepted, speed of refusals"),
    "reloads": (reloads, "100 new versions under half load: failures, memory"),
    "rollback": (rollback, "promote and roll back under load: failures, when every worker has followed"),
    "stops": (stops, "SIGTERM under full load, 20 times: requests lost"),
    "crashes": (crashes, "kill -9 of one worker of two under load: what is lost, how soon it is back"),
    "balance": (
        balance,
        "gRPC and HTTP connections on two workers: are both cores busy, does each worker do its share",
    ),
}
EXAMPLES = """\
examples:
  python -m benchmarks demo
  python -m benchmarks locust --users 100 --seconds 30
  python -m benchmarks.batcher --help      the batcher's own cost, without a server
"""


def main() -> int:
    """Runs the command that the arguments name."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=text, description=text))
    arguments = parser.parse_args()
    try:
        return int(COMMANDS[arguments.command][0].run_command(arguments))
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

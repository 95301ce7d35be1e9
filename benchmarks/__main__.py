"""`python -m benchmarks`: every measurement and the demo, by name."""

import argparse
import sys

from benchmarks import (
    accuracy,
    balance,
    classify_many,
    crashes,
    demo,
    export_speed,
    export_time,
    footprint,
    full,
    gate,
    growth,
    half_load,
    idle,
    limit,
    locust_run,
    overload,
    peak,
    peers_run,
    perf_analyzer,
    photos,
    poisson,
    prediction_log,
    reloads,
    render,
    retrain,
    rollback,
    stages,
    stops,
    training_speed,
    tuning,
)

COMMANDS = {
    "demo": (demo, "train, export, serve and classify, and compare the served accuracy with the verified one"),
    "locust": (locust_run, "100 locust users by HTTP and by gRPC: no failure, p99 < 200 ms"),
    "accuracy": (accuracy, "a data set's own files through a server, by JSON, upload and gRPC, against Keras"),
    "retrain": (retrain, "make train export beside a server under locust: failures, and when the new version answers"),
    "classify-many": (classify_many, "5,000 single pictures by the client package, against the peak by raw stubs"),
    "training-speed": (training_speed, "images per second of training against a plain model.fit on NumPy arrays"),
    "export-speed": (
        export_speed,
        "what each graph of a bundle costs at one thread, on ONNX Runtime and on OpenVINO: int8 ≥ 2.7 × float32",
    ),
    "export-time": (export_time, "an export that verifies on 10,000 rows: at most 60 s and 2 GB on two cores"),
    "idle": (idle, "one request at a time: what is added to the bare ONNX Runtime call"),
    "peak": (peak, "the most that HTTP answers, by payload and connections, and its CPU time; hot path and aiohttp"),
    "limit": (limit, "images per second through the server, as a share of what the bare engine does on the same cores"),
    "stages": (stages, "where each microsecond of a request goes: PNG upload, binary tensor, gRPC"),
    "peers": (peers_run, "one image a request by other servers and by ours, by turns (make bench-peers)"),
    "poisson": (poisson, "the most arrivals at random times that are answered within 15 ms, and within 200 ms"),
    "half-load": (half_load, "what a client waits for at half of the peak, and on a connection of its own"),
    "photos": (photos, "photographs to MobileNetV2: decode, resize and infer, beside the limit and mosec"),
    "footprint": (footprint, "memory of two workers, seconds until ready, what a second worker costs"),
    "growth": (growth, "CPU time of a request with more connections, more models, and after millions"),
    "gate": (gate, "is a request dearer than when it was last accepted? exit code 1 past a tenth"),
    "full": (full, "every figure of docs/performance.md, one after the other; goes on where it was cut off"),
    "render": (render, "writes the tables of docs/performance.md from benchmarks/results"),
    "tuning": (tuning, "a swarm and random search at one budget, then the best of each trained in full"),
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
  python -m benchmarks poisson --help      what a command does, its flags, and examples
  python -m benchmarks full --list         what there is to measure, and how long it takes

without a server, each with --help:
  python -m benchmarks.batcher             what the batcher itself costs
  python -m benchmarks.bare_engine         ONNX Runtime in a loop
  python -m benchmarks.photo_limit         photographs decoded and classified in a loop
  python -m benchmarks.pso                 the swarm beside random search and TPE on known functions
  python -m benchmarks.pso_asking          what it costs to ask for a trial
  python -m benchmarks.pso_crash           a search that is killed again and again
  python -m benchmarks.smoke URL           is a deployed server fit?
"""
USUAL = {  # flags of an example, where a command has no examples of its own
    "demo": "--work build/demo",
    "accuracy": "--models models --data data/cifar10 --run runs/cifar10/1 --out accuracy.json",
    "training-speed": "--architectures cnn --rounds 3 --out training-speed.json",
    "peak": "--models models --payloads upload,binary --connections 32 --out peak.json",
    "limit": "--models models --rounds 3 --out limit.json",
    "overload": "--models models --seconds 20 --times 2 --out overload.json",
}


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
        told = module.__doc__ or text
        usual = f"example:\n  python -m benchmarks {name} {USUAL.get(name, f'--models models --out {name}.json')}"
        examples = getattr(module, "EXAMPLES", usual)
        module.add_arguments(
            commands.add_parser(
                name, help=text, description=told, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
            )
        )
    arguments = parser.parse_args()
    try:
        return int(COMMANDS[arguments.command][0].run_command(arguments))
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())

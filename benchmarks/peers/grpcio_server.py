"""The model behind grpcio's own thread pool: the Open Inference Protocol's ModelInfer, no batching.

A process for each core, which listen on one port; the kernel spreads connections over them (SO_REUSEPORT).
"""

import argparse
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np

from benchmarks.peers.classifier import Classifier
from protos import inference_pb2, inference_pb2_grpc

THREADS = 16


class Servicer(inference_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers ModelInfer alone."""

    def __init__(self) -> None:
        self._classifier = Classifier()

    def ModelInfer(  # noqa: N802  gRPC's name
        self, request: inference_pb2.ModelInferRequest, context: grpc.ServicerContext
    ) -> inference_pb2.ModelInferResponse:
        """Runs the rows of one request."""
        del context
        tensor = request.inputs[0]
        rows = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(tuple(tensor.shape))
        found = self._classifier.probabilities(rows)
        answer = inference_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
        answer.outputs.add(name="probabilities", datatype="FP32", shape=found.shape)
        answer.raw_output_contents.append(found.tobytes())
        return answer


def serve(port: int) -> None:
    """One process.

    Args:
        port: Where it listens beside the others.
    """
    server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 1)])
    servicer = Servicer()  # type: ignore[abstract]  # every other method answers UNIMPLEMENTED
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


def main() -> None:
    """Serves until it is told to stop."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc-port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    arguments = parser.parse_args()
    apart = multiprocessing.get_context("spawn")  # neither grpcio nor ONNX Runtime may be forked once it has threads
    for _ in range(arguments.workers - 1):
        apart.Process(target=serve, args=(arguments.grpc_port,), daemon=True).start()
    serve(arguments.grpc_port)


if __name__ == "__main__":
    main()

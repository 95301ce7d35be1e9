"""The model behind grpcio's own thread pool, in one process: the Open Inference Protocol's ModelInfer, no batching."""

import argparse
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--grpc-port", type=int, required=True)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    servicer = Servicer()  # type: ignore[abstract]  # every other method answers UNIMPLEMENTED
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{parser.parse_args().grpc_port}")
    server.start()
    server.wait_for_termination()

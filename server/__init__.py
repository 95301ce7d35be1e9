"""Bytes in, predictions out: an asyncio gRPC and HTTP server that batches requests for ONNX Runtime."""

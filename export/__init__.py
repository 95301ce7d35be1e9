"""A run folder to a bundle: convert to ONNX, quantize, verify, write."""

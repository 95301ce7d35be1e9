"""One module for each wire format: pure functions from bytes or messages to `InferRequest` and back."""

"""The same model behind other servers, each as its own documentation would have it, to be measured beside ours.

They run in an environment of their own (`make bench-peers`), on the same ONNX file with one thread for each process.
"""

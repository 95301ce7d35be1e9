"""The commands of `python -m export`: a module each, whose `add(commands)` adds its parser.

ONNX and TensorFlow take seconds to import, so what a command runs is imported when it runs: `--help` answers at once.
"""

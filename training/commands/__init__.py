"""The commands of `python -m training`: a module each, whose `add(commands)` adds its parser.

TensorFlow takes seconds to import, so what a command runs is imported when it runs: `--help` answers at once.
"""

"""The model behind Flask and gunicorn, without batching, a process for each core."""

from typing import Any

from flask import Flask, request

from benchmarks.peers.classifier import Classifier

app = Flask(__name__)
classifier = Classifier()


@app.post("/inference")
def classify() -> Any:
    """Classifies one body."""
    return classifier.classify([classifier.read(request.get_data())])[0]

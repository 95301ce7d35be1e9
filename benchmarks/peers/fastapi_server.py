"""The model behind FastAPI, without batching, a uvicorn process for each core."""

from typing import Any

from fastapi import FastAPI, Request

from benchmarks.peers.classifier import Classifier

app = FastAPI()
classifier = Classifier()


@app.post("/inference")  # type: ignore[untyped-decorator]  # not installed where types are checked
async def classify(request: Request) -> Any:
    """Classifies a picture in the event loop: it takes less than handing it to a thread."""
    return classifier.classify([classifier.read(await request.body())])[0]

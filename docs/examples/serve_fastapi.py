"""Serve a saved model over HTTP with FastAPI.

Install it with ``pip install "fastapi[standard]"``. Start the server, and send it a photo::

    MODEL=palaces.sktransfer fastapi run serve_fastapi.py
    curl -F photo=@photo.jpg http://127.0.0.1:8000/classify
"""

import os
from typing import Annotated

from fastapi import FastAPI, File, HTTPException

import sktransfer

model = sktransfer.load(os.environ["MODEL"])
app = FastAPI(title="sktransfer")


@app.post("/classify")
def classify(photo: Annotated[bytes, File()]) -> dict[str, float]:  # without async, so that FastAPI uses threads
    """Return the probability of each class. Bytes are the content of an image, never a path."""
    try:
        (probabilities,) = model.predict_proba([photo])
    except sktransfer.ImageError as error:
        raise HTTPException(422, str(error)) from error
    return dict(zip(map(str, model.classes_), probabilities.tolist(), strict=True))

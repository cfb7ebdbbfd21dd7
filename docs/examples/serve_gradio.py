"""Show a saved model as a page with Gradio.

Install it with ``pip install gradio``. Start the server, which prints its address::

    MODEL=palaces.sktransfer python serve_gradio.py
"""

import os

import gradio as gr

import sktransfer

model = sktransfer.load(os.environ["MODEL"])


def classify(photo: str) -> dict[str, float]:
    """Return the probability of each class of the image in a file, which Gradio received."""
    try:
        (probabilities,) = model.predict_proba([photo])
    except sktransfer.ImageError as error:
        raise gr.Error(str(error)) from error
    return dict(zip(map(str, model.classes_), probabilities.tolist(), strict=True))


app = gr.Interface(classify, gr.Image(type="filepath"), gr.Label(num_top_classes=5), analytics_enabled=False)

if __name__ == "__main__":
    app.launch()

"""`card`: a model card, which says what a fitted model is, how good it is, and where its limits lie."""

from __future__ import annotations

import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from ._classifier import FineTunedCNNClassifier
from ._feature_classifier import FeatureClassifier
from ._fitted_parts import Parts, Reader, parts_of, weights_of
from ._protocols import StrPath
from ._sklearn_compat import num_samples
from ._validation import check_labels
from ._whole_files import write_whole

PACKAGES = ("sktransfer", "scikit-learn", "torch", "timm", "torchvision", "pillow")
_Z = 1.959963984540054  # quantile of the normal distribution that leaves out 5 % at both ends together
_NOT_LISTED = {"verbose", "n_jobs", "memory", "device", "weights"}  # they change no prediction, or stand elsewhere

_LIMITS = """- The model answers one of its classes for every picture, also for a picture that shows none of them.
- Its scores hold for images like those that it was tested on. With another camera, light, place or time it may be less
  accurate. Test it on images of your own first.
- If copies of one image are in both the training and the test images, scores are too high.
  `sktransfer.find_duplicates` finds copies.
- A probability is an estimate. Do not let it alone decide about people, health or safety."""

_NO_DATA = (
    "The training images are not described. Add here where they come from, how many there are, who or what they show, "
    "and under which licence they are."
)
_NO_SCORES = "No test images were given to `sktransfer.card`, so the accuracy of the model is not known."

_LOADING = """```python
import sktransfer

model = sktransfer.load({name!r})
model.predict(["photo.jpg"])
```

`sktransfer.save` writes this file. Loading it runs no code from it. `sktransfer.export` writes the model for programs
without Python."""


def card(model: BaseEstimator, path: StrPath | None = None, *, X: Any = None, y: Any = None, data: str = "") -> Any:
    """Describe a fitted model in a model card: what it is, how good it is, and where its limits lie.

    Parameters
    ----------
    model : estimator
        A fitted classifier, as `export` takes it.
    path : path, default=None
        The Markdown file to write. None writes none.
    X : images, default=None
        Test images that the model was not trained on, in any form that it accepts. None leaves out the scores.
    y : array-like of shape (n_images,), default=None
        Their labels.
    data : str, default=""
        Text about the training images: where they come from, how many there are, and their licence. The model does not
        know this. Without it, the card asks for it.

    Returns
    -------
    card : skops.card.Card
        The card, to which you may add sections. ``card.render()`` returns Markdown.

    Raises
    ------
    NotFittedError
        If the model is not fitted.
    ExportError
        If the model is not a classifier of images of this package.
    ValueError
        If only one of `X` and `y` is given.
    LabelError
        If `y` does not give a label for each image.
    ImageError
        If an image cannot be read.

    See Also
    --------
    save : Write a model to a file.
    export : Write a model for other programs.

    Notes
    -----
    Intervals are Wilson's at 95 % [1]_. They assume that the test images are independent of each other, which several
    photos of one object are not.

    References
    ----------
    .. [1] E. B. Wilson, "Probable inference, the law of succession, and statistical inference", Journal of the
       American Statistical Association 22, 1927.

    Examples
    --------
    >>> import sktransfer
    >>> clf = sktransfer.make_feature_classifier().fit(photos, labels)  # doctest: +SKIP
    >>> print(sktransfer.card(clf, X=new_photos, y=new_labels).render())  # doctest: +SKIP
    """
    from skops.card import Card

    if (X is None) != (y is None):
        raise ValueError("Pass both X and y, or none of them: scores need images and their labels.")
    parts = parts_of(model)
    title = Path(path).stem if path is not None else type(model).__name__
    found = Card(model, model_diagram=False, template=None)
    sections = {
        "": f"This model sorts images into {len(parts.classes)} classes. It was made with "
        f"[sktransfer](https://github.com/sktransfer/sktransfer) {version('sktransfer')}.",
        "Classes": ", ".join(_text(label) for label in parts.classes.tolist()),
        "Training data": data or _NO_DATA,
        "Accuracy": _NO_SCORES if X is None else _scores(model, parts, X, y),
        "Limits": _LIMITS,
        "Model": _anatomy(parts),
        "Preparation of images": "\n\n".join(reader.backbone.preprocessing.in_words for reader in parts.readers),
        "Use": _LOADING.format(name=f"{title}.sktransfer"),
        "Versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES) + ".",
    }
    heading = title.replace("/", "∕")  # skops reads a slash as the mark of a section within another
    for name, text in sections.items():
        found.add(**{f"{heading}/{name}" if name else heading: text})
    if path is not None:
        write_whole(Path(path).expanduser(), found.render().lstrip().encode())
    return found


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """Return Wilson's interval at 95 % of a share, given the hits among n trials; n is at least 1."""
    share, weight = hits / n, _Z**2 / n
    centre = (share + weight / 2) / (1 + weight)
    half = math.sqrt(weight * (share * (1 - share) + weight / 4)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def _scores(model: Any, parts: Parts, X: Any, y: Any) -> str:
    labels = check_labels(y, num_samples(X), n_classes=1)
    predicted = np.asarray(model.predict(X))
    right = predicted == labels
    n = len(labels)
    counts = {label: int((labels == label).sum()) for label in parts.classes.tolist()}
    lines = [
        f"Accuracy on {n} test images: {_share(int(right.sum()), n)}. A model that always answers the most frequent "
        f"class of these images would score {np.unique(labels, return_counts=True)[1].max() / n:.3f}.",
        "",
        "| class | images | found (recall) | right when answered (precision) |",
        "|---|---|---|---|",
    ]
    for label, count in counts.items():
        hits, answered = int((right & (labels == label)).sum()), int((predicted == label).sum())
        cells = [_text(label), count, _share(hits, count), _share(hits, answered)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    unknown = sorted({_text(label) for label in labels.tolist()} - {_text(label) for label in counts})
    if unknown:
        lines += ["", f"The test images have classes that the model does not know: {', '.join(unknown)}."]
    lines += ["", "Brackets hold 95 % intervals (Wilson). They assume that the images are independent of each other."]
    return "\n".join(lines)


def _share(hits: int, n: int) -> str:
    if n == 0:
        return "–"
    low, high = wilson_interval(hits, n)
    return f"{hits / n:.3f} [{low:.3f}, {high:.3f}]"


def _anatomy(parts: Parts) -> str:
    lines = []
    for reader in parts.readers:
        lines += [f"- Network: {reader.backbone.name}. {_frozen(reader)}", f"- Weights: {weights_of(reader)}."]
    estimators = [(reader.name, reader.estimator) for reader in parts.readers] + parts.steps
    for name, estimator in estimators:
        kind = type(estimator).__name__
        role = "" if name == kind else f"`{name}`: "
        lines.append(f"- {role}{kind}{_settings(estimator)}{_choice(estimator)}")
    return "\n".join(lines)


def _frozen(reader: Reader) -> str:
    n_stages = len(reader.backbone.stages)
    if not isinstance(reader.estimator, FineTunedCNNClassifier):
        return f"All {n_stages} stages are frozen."
    n_frozen = reader.estimator.n_frozen_stages_
    return f"{n_frozen} of its {n_stages} stages are frozen, the others and the head were trained."


def _settings(estimator: Any) -> str:
    """List the parameters that differ from the defaults, without those that change no prediction."""
    try:
        defaults = type(estimator)().get_params(deep=False)
    except TypeError:  # some meta-estimators have no defaults
        defaults = {}
    given = {
        name: value
        for name, value in estimator.get_params(deep=False).items()
        if name not in _NOT_LISTED and not isinstance(value, BaseEstimator) and repr(value) != repr(defaults.get(name))
    }
    return " with " + ", ".join(f"`{name}={_text(repr(value))}`" for name, value in given.items()) if given else ""


def _choice(estimator: Any) -> str:
    """Say what a `FeatureClassifier` chose on held-out images."""
    if not isinstance(estimator, FeatureClassifier):
        return ""
    stages = "stage" if estimator.n_stages_ == 1 else f"{estimator.n_stages_} stages"
    return f". It reads the last {stages}, with `C={estimator.C_:g}`"


def _text(value: Any) -> str:
    """Return a value as text that breaks neither a line nor a table."""
    return " ".join(str(value).split()).replace("|", "\\|")

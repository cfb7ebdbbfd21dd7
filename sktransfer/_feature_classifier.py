"""`FeatureClassifier`: a linear model on frozen features, which chooses how many stages it uses."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.pipeline import FeatureUnion
from sklearn.utils import gen_batches, get_tags
from sklearn.utils.validation import check_is_fitted

from ._features import PretrainedCNNFeatures
from ._portable import whole_or_nothing
from ._sklearn_compat import HasMethods, check_sample_weight, fit_context, num_samples
from ._stage_search import Folds, Stages, balanced, choose, fit_logistic, suffix
from ._validation import check_labels, drawn, encoded
from ._warnings import warnings_ignored

# The choice is made on about so many images of each class, and on so many in all. With more, it takes longer and hardly
# changes.
_SEARCHED_OF_A_CLASS = 40
_LEAST_SEARCHED, _MOST_SEARCHED = 600, 2000


class FeatureClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression on the features of a frozen network, which chooses how many stages it uses.

    The features are computed once. Their last stage suits images that resemble those of pretraining, and earlier
    stages suit others [1]_. So the number of stages is chosen together with `C`, by the log loss of held-out images.
    The features of each stage are centred on the training images and divided by their norm [2]_. Held-out images
    also calibrate the probabilities [3]_.

    Parameters
    ----------
    features : transformer, default=None
        Turns images into features: a `PretrainedCNNFeatures`, a `FeatureUnion` of several, or any other transformer,
        which then counts as one stage. None means ``PretrainedCNNFeatures(layer="all", pooling="avgstd")``.
    n_stages : sequence of int, default=(1, 3, 5)
        The numbers of last stages to choose from. All of a network's stages are taken if it has fewer.
    Cs : sequence of float, default=(0.1, 1, 10)
        The values of `C` to choose from, in ascending order. The search stops at the first that is worse than the one
        before.
    cv : int, splitter or iterable, default=5
        How images are held out. A number means stratified folds, or fewer if the largest class has fewer images. If
        no class has two images, nothing can be held out. Then the middle values of `n_stages` and `Cs` are taken.

    Attributes
    ----------
    n_stages_ : int
        The number of last stages that was chosen.
    C_ : float
        The value of `C` that was chosen.
    sharpness_ : float
        The factor of the logits that fits held-out images best: one divided by the temperature of [3]_.
    log_losses_ : dict of int to list of float
        The mean log loss of the held-out images for each number of stages, and each C that was tried. It is empty if
        nothing could be held out.
    features_ : transformer
        The fitted transformer.
    classifier_ : LogisticRegression
        The model on the features of the last `n_stages_` stages, centred and divided by their norms. Its
        coefficients include `sharpness_`.
    classes_ : ndarray of shape (n_classes,)

    See Also
    --------
    make_feature_classifier : Makes one from the parameters of `PretrainedCNNFeatures`.
    FineTunedCNNClassifier : Trains the last stages of the network too.

    Notes
    -----
    The choice is made on a sample of about 40 images of each class, 600 to 2,000 in all. All images are fitted.

    References
    ----------
    .. [1] U. Evci, V. Dumoulin, H. Larochelle, M. C. Mozer, "Head2Toe: utilizing intermediate representations for
       better transfer learning", ICML 2022.
    .. [2] Y. Wang, W.-L. Chao, K. Q. Weinberger, L. van der Maaten, "SimpleShot: revisiting nearest-neighbor
       classification for few-shot learning", arXiv:1911.04623, 2019.
    .. [3] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML 2017.

    Examples
    --------
    >>> from sktransfer import FeatureClassifier
    >>> clf = FeatureClassifier()
    >>> clf.fit(["cat1.jpg", "cat2.jpg", "dog1.jpg"], ["cat", "cat", "dog"])  # doctest: +SKIP
    """

    __module__ = "sktransfer"  # where users find it; files and pickles name it

    _parameter_constraints: dict[str, Any] = {
        "features": [HasMethods(["fit", "transform"]), None],
        "n_stages": ["array-like"],
        "Cs": ["array-like"],
        "cv": ["cv_object"],
    }

    def __init__(
        self,
        features: Any = None,
        *,
        n_stages: Sequence[int] = (1, 3, 5),
        Cs: Sequence[float] = (0.1, 1, 10),
        cv: Any = 5,
    ) -> None:
        self.features = features
        self.n_stages = n_stages
        self.Cs = Cs
        self.cv = cv

    @fit_context(prefer_skip_nested_validation=False)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Compute the features, choose the number of stages and C, and fit the linear model.

        Parameters
        ----------
        X : images
            Anything that the transformer accepts.
        y : array-like of shape (n_images,)
            Labels.
        sample_weight : array-like of shape (n_images,), default=None
            How much each image counts.
        groups : array-like of shape (n_images,), default=None
            Images of one group are held out together, if `cv` is a number or a splitter which keeps groups together.

        Returns
        -------
        self : FeatureClassifier
            The fitted classifier.

        Raises
        ------
        LabelError
            If a label is missing, or if there is only one class.
        ImageError
            If images cannot be read. The message lists them.
        ValueError
            If `n_stages` or `Cs` is empty or holds values that are not positive, or if a feature is not a number.
        """
        numbers = _positive(self.n_stages, "n_stages", Integral, (1, 3, 5))
        Cs = _positive(self.Cs, "Cs", Real, (0.1, 1, 10))
        with whole_or_nothing(self):
            self.features_ = clone(self.transformer).fit(X, y)
            y = check_labels(y, num_samples(X))
            self.classes_ = np.unique(y)
            codes = encoded(y, self.classes_)
            matrix = self._matrix(X)
            weights = check_sample_weight(sample_weight, matrix, ensure_non_negative=True)
            if not weights.any():  # newer versions of scikit-learn have said so already
                raise ValueError("Sample weights must contain at least one non-zero number.")
            stages = _stages(self.features_, matrix.shape[1])
            rows, folds = self._rows_and_folds(codes, groups)
            choice = choose(matrix[rows], stages, codes[rows], weights[rows], n_stages=numbers, Cs=Cs, folds=folds)
            self.n_stages_, self.C_, self.sharpness_, self.log_losses_ = choice
            self._columns, self._parts = suffix(stages, self.n_stages_)
            self._centre = np.average(matrix[:, self._columns], axis=0, weights=weights).astype(matrix.dtype)
            model = fit_logistic(self._balanced(matrix), codes, weights, self.C_)
            model.classes_ = self.classes_
            model.coef_ = model.coef_ * self.sharpness_
            model.intercept_ = model.intercept_ * self.sharpness_
            self.classifier_ = model
        return self

    @property
    def transformer(self) -> Any:
        """The unfitted transformer: `features`, or what None stands for."""
        return PretrainedCNNFeatures(layer="all", pooling="avgstd") if self.features is None else self.features

    def decision_function(self, X: Any) -> NDArray[np.floating]:
        """Return the logits of each class.

        Parameters
        ----------
        X : images
            As in `fit`.

        Returns
        -------
        logits : ndarray of shape (n_images, n_classes), or (n_images,) for two classes
            Larger means more probable. Columns are in the order of `classes_`.
        """
        logits: NDArray[np.floating] = self._of_classifier("decision_function", X)
        return logits

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each image.

        Parameters
        ----------
        X : images
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_images,)
            The labels, of the type of those that were passed to `fit`.
        """
        labels: NDArray[Any] = self._of_classifier("predict", X)
        return labels

    def predict_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the probability of each class.

        Parameters
        ----------
        X : images
            As in `fit`.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes)
            Columns are in the order of `classes_`. They are calibrated on held-out images.
        """
        probabilities: NDArray[np.floating] = self._of_classifier("predict_proba", X)
        return probabilities

    def predict_log_proba(self, X: Any) -> NDArray[np.floating]:
        """Return the logarithm of the probability of each class.

        Parameters
        ----------
        X : images
            As in `fit`.

        Returns
        -------
        log_probabilities : ndarray of shape (n_images, n_classes)
            Columns are in the order of `classes_`.
        """
        logits = self.decision_function(X)
        if logits.ndim == 1:
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
        logs: NDArray[np.floating] = log_softmax(logits, axis=1)
        return logs

    def _of_classifier(self, method: str, X: Any) -> Any:
        check_is_fitted(self)
        matrix = self._matrix(X)
        # In double precision, and a part at a time, so that an image's result does not depend on the others.
        parts = [self._balanced(matrix[rows].astype(np.float64)) for rows in gen_batches(len(matrix), 1000)]
        return np.concatenate([getattr(self.classifier_, method)(part) for part in parts])

    def _matrix(self, X: Any) -> np.ndarray:
        matrix = np.asarray(self.features_.transform(X))
        lost = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if len(lost):
            raise ValueError(
                f"Features of {len(lost)} images are not finite, the first at row {lost[0]}. Images that cannot be "
                "read give NaN with on_error='nan'. find_bad_images finds them: leave them out."
            )
        return matrix

    def _balanced(self, matrix: np.ndarray) -> np.ndarray:
        return balanced(matrix[:, self._columns], self._centre, self._parts)

    def _rows_and_folds(self, codes: np.ndarray, groups: Any) -> tuple[np.ndarray, Folds]:
        """Return the rows that the choice is made on, and folds, which hold positions among these rows."""
        cv, counts = self.cv, np.bincount(codes)
        if isinstance(cv, Integral):
            n_groups = len(codes) if groups is None else len(np.unique(groups))
            n_folds = min(int(cv), int(counts.max()), n_groups)
            if n_folds < 2:
                return np.arange(len(codes)), []
            cv = StratifiedKFold(n_folds) if groups is None else StratifiedGroupKFold(n_folds)
        with warnings_ignored("sklearn"):  # it warns of classes with fewer images than folds
            folds = list(check_cv(cv, codes, classifier=True).split(codes, codes, groups))
        searched = min(max(_LEAST_SEARCHED, _SEARCHED_OF_A_CLASS * len(counts)), _MOST_SEARCHED)
        if len(codes) <= searched:
            return np.arange(len(codes)), folds
        sample = drawn(codes, np.ceil(searched * counts / len(codes)), seed=0)
        place = np.cumsum(sample) - 1  # of each row in the sample
        return np.flatnonzero(sample), [tuple(place[part[sample[part]]] for part in fold) for fold in folds]

    @property
    def n_features_in_(self) -> int:
        """Number of columns, if images are flat rows."""
        check_is_fitted(self)
        return int(self.features_.n_features_in_)

    @property
    def feature_names_in_(self) -> NDArray[np.object_]:
        """Names of the columns, if images are rows of a frame."""
        check_is_fitted(self)
        names: NDArray[np.object_] = self.features_.feature_names_in_
        return names

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "classifier_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags = get_tags(self.transformer).input_tags
        return tags


def _stages(transformer: Any, n_columns: int) -> Stages:
    """Return the columns of each stage; the last stages of several transformers count as one."""
    if isinstance(transformer, FeatureUnion):
        stages: Stages = []
        first = 0
        for _, part in transformer.transformer_list:
            if part == "drop":
                continue
            n = len(part.get_feature_names_out())
            own = [[slice(s.start + first, s.stop + first) for s in stage] for stage in _stages(part, n)]
            longer, shorter = sorted((stages, own), key=len, reverse=True)
            extra = len(longer) - len(shorter)
            stages = longer[:extra] + [a + b for a, b in zip(longer[extra:], shorter, strict=True)]
            first += n
        return stages
    if isinstance(transformer, PretrainedCNNFeatures):
        return transformer.stage_columns_
    return [[slice(0, n_columns)]]


def _positive(values: Any, name: str, kind: Any, example: tuple[float, ...]) -> list[Any]:
    """Return the values of a parameter, which must be positive numbers of this kind."""
    numbers = list(values)
    wrong = [value for value in numbers if not isinstance(value, kind) or isinstance(value, bool) or not value > 0]
    if wrong or not numbers:
        found = f"it holds {wrong[0]!r}" if wrong else "it is empty"
        raise ValueError(f"{name}={values!r}: expected positive numbers such as {example}, but {found}.")
    return sorted(numbers)


def make_feature_classifier(
    backbone: str | Sequence[str] = "efficientnet_lite0", *, cv: Any = 5, **params: Any
) -> FeatureClassifier:
    """Return a `FeatureClassifier` on the features of every stage: means and deviations of each map.

    Parameters
    ----------
    backbone : str or list of str, default="efficientnet_lite0"
        The network; `list_backbones` names them all. The features of several networks are used side by side, which
        takes the time of all of them. ``["efficientnet_lite0", "efficientnet_lite2"]`` scored 1 to 3 points more than
        the first alone on clothes and on wallpaper patterns (STRAT-01 in ``docs/design/strategies.md``).
    cv : int or splitter, default=5
        How the number of stages and C are chosen.
    **params
        Parameters of `PretrainedCNNFeatures`. The defaults here are ``layer="all"`` and ``pooling="avgstd"``.

    Returns
    -------
    classifier : FeatureClassifier
        The classifier, not fitted yet.

    See Also
    --------
    FeatureClassifier : The class, which explains how the stages are chosen.

    Examples
    --------
    >>> from sktransfer import make_feature_classifier
    >>> clf = make_feature_classifier(image_size=128)
    >>> clf.fit(["cat1.jpg", "cat2.jpg", "dog1.jpg"], ["cat", "cat", "dog"])  # doctest: +SKIP
    """
    params = {"layer": "all", "pooling": "avgstd", **params}
    if isinstance(backbone, str):
        return FeatureClassifier(PretrainedCNNFeatures(backbone, **params), cv=cv)
    if not backbone or len(set(backbone)) < len(backbone):
        raise ValueError(f"backbone={backbone!r}: expected the name of a network, or a list of different names.")
    union = FeatureUnion([(name.replace("__", "_"), PretrainedCNNFeatures(name, **params)) for name in backbone])
    return FeatureClassifier(union, cv=cv)

"""`FineTunedCNNClassifier`: images in, classes out; the stages after the cut are trained."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils.validation import check_is_fitted

from ._exceptions import WeightsMismatchError
from ._finetuning._network import new_network
from ._finetuning._recipe import resolve_recipe, resolve_tta
from ._finetuning._training import OngoingTraining, check_net_params, new_net, train
from ._finetuning._training_data import Examples, FrozenBody, make_views
from ._frozen._augmentation import AUGMENTATIONS, Augmentation
from ._frozen._backbones import Backbone, load_backbone
from ._frozen._device_memory import Halving
from ._frozen._engines import resolve_device
from ._images._pillow_settings import TakesSettingsAlong
from ._parameters import SHARED_CONSTRAINTS, as_seen, make_extractor, resolve_freeze
from ._portable import Portable, whole_or_nothing
from ._protocols import Auto, StrPath
from ._registry import start_clean_after_fork
from ._sklearn_compat import Interval, StrOptions, check_sample_weight, fit_context
from ._validation import check_class_sizes, check_images, check_labels, encoded


class FineTunedCNNClassifier(TakesSettingsAlong, ClassifierMixin, Portable):
    """A pretrained convolutional network with a new head, fine-tuned from a chosen depth.

    The first stages are frozen: they never change, BatchNorm statistics included. The stages after them learn at a
    tenth of the head's learning rate. The head starts as a logistic regression on the pretrained features.
    The package skorch trains the network, which is in ``net_`` after `fit`.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all. The default comes with the package and works offline.
    weights : "default", path or None, default="default"
        ``"default"`` takes the published ImageNet weights. A path reads a ``.safetensors`` or ``.pth`` file,
        with or without the original head. None trains from scratch.
    freeze : int, str or "auto", default="auto"
        How many stages to freeze. 0 freezes nothing. An integer k freezes the first k stages. The name of a stage
        freezes all stages up to and including it. ``"all"`` freezes the whole backbone, so that only the head learns.
        ``"auto"`` freezes the first half of the stages, or nothing when ``weights=None``.
    tune : {"all", "norm", "bias"}, default="all"
        Which parameters of the stages that are not frozen are trained: all, those of the normalisation layers [3]_, or
        all biases [4]_. The head is trained in each case.
    lr : float or "auto", default="auto"
        Learning rate of the head, and of the whole network when ``weights=None``. ``"auto"`` is 3e-3, or 1e-3 when
        ``weights=None``.
    lr_factor : float, default=0.1
        The pretrained stages that are not frozen learn at ``lr * lr_factor``.
    max_epochs : int or "auto", default="auto"
        Number of passes through the training images. ``"auto"`` trains on about 24,000 images in total, in 6 to 30
        epochs; on 16,000 with new views of ``augment="photo"``. When ``weights=None``, it trains on about 60,000, in
        10 to 60 epochs.
    batch_size : int, default=32
        The largest number of images in one step.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        Random changes of the training images. None trains on stored activations, so the frozen stages run once.
        ``"photo"`` flips, zooms in, shifts, rotates and changes colours a little, and the first three fifths of the
        epochs show smaller images, which saves time. ``"any_orientation"`` flips and turns, for cells, tiles and
        microscopes. ``"text"`` does not flip. A callable maps one uint8 tensor (3, H, W) to another, as torchvision's
        v2 transforms do.
    n_views : int or None, default=None
        None draws new views in each epoch and runs the frozen stages each time. A number n draws n views of each
        image once, stores their activations at the cut, and picks one in each epoch, which is many times faster.
    tta : int or "auto", default="auto"
        Test-time augmentation: with `augment`, `predict_proba` averages over this number of views of each image, always
        the same. One of them is the image itself. ``"auto"`` is 8 for ``"any_orientation"``, else 1.
    head_hidden : tuple of int, default=()
        Widths of dense layers between the features and the classes.
    dropout : float, default=0.2
        Fraction of the features that is dropped before each dense layer in training.
    weight_decay : float, default=0.01
        Weight decay of the AdamW optimiser.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.
    early_stopping : bool or int, default=False
        Hold out `validation_fraction` of the images, stop when their loss has not improved for this number of
        epochs (5 for True), and return to the best weights, which are kept in memory. If one copy of an image is held
        out and another is trained on, the loss looks too good; `find_duplicates` finds copies.
    validation_fraction : float, default=0.1
        Fraction of each class that is held out for `early_stopping`: at least one image, but never all of them.
    callbacks : list of skorch callbacks, default=None
        Callbacks that are passed to skorch.
    net_params : dict, default=None
        Further parameters of `skorch.NeuralNetClassifier`, such as
        ``{"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}``.
    image_size : int or (int, int), default=None
        Height and width in pixels of the network's input; one number means a square. None keeps the resolution of
        pretraining: 256 pixels for most weights, 224 with `crop`.
    crop : bool or "auto", default="auto"
        Whether to use only the central part of an image, as the evaluation of the weights and `PretrainedCNNFeatures`
        do. ``"auto"`` crops if `image_size` is given. If neither is set, the whole image (its central square if it is
        not square) is used at the resolution of pretraining.
    resize : {"auto", "crop", "pad", "squash"}, default="auto"
        What to do with images that are not of the shape of the network's input. ``"crop"`` cuts off what does not fit.
        ``"pad"`` shows the whole image, a long strip too, with the mean colour of pretraining around it. ``"squash"``
        shows the whole image, distorted. ``"auto"`` is what the weights were trained with, most often ``"crop"``.
    image_shape : tuple of int, default=None
        Shape of one image if `X` holds flat rows, in the form that `numpy.reshape` accepts: ``(8, 8)``,
        ``(32, 32, 3)``, ``(1, -1)``.
    value_range : "auto" or (float, float), default="auto"
        The values that mean black and white. ``"auto"`` means 0 to 255 for uint8 and 0 to 65535 for uint16;
        floats must lie between 0 and 1.
    precision : {"float32", "bfloat16"}, default="float32"
        Number format of convolutions and matrix products. Results are float32 in both cases.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``, which uses a GPU if one exists.
    memory : None, path or joblib.Memory, default=None
        A folder that stores activations, so that other processes and later sessions need not compute them again.
        Within one process they are always kept in memory. `set_cache_limits` limits both.
    n_jobs : int, default=None
        Number of threads that decode images. None uses as many as torch; -1 uses all cores.
    warm_start : bool, default=False
        `fit` continues from the last fit instead of the pretrained weights, and the learning rate schedule starts
        again. Fewer stages may be frozen than before, so you can train the head first and then more and more stages.
    random_state : int, RandomState or None, default=None
        With an int, two fits on the same images give the same result.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    net_ : skorch.NeuralNetClassifier
        The trained net. Its input is the output of the frozen stages; its classes are positions in `classes_`.
    history_ : list of dict
        One record per epoch: ``epoch``, ``seconds``, ``train_loss``, ``train_accuracy``, ``valid_loss`` and
        ``valid_accuracy`` with `early_stopping`, ``lr``, ``lr_pretrained``.
    n_frozen_stages_ : int
        How many stages are frozen.
    weights_checksum_ : str
        SHA-256 of the backbone's weights before training. `predict` refuses to run with others.
    n_features_in_ : int
        Number of columns, if `X` holds flat rows.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` is a frame of flat rows.

    See Also
    --------
    PretrainedCNNFeatures : Features for any scikit-learn estimator; for less than a hundred images, or in seconds.

    Notes
    -----
    The head starts as a logistic regression on the pretrained features [1]_. Photos are shown smaller in the first
    epochs [2]_.

    A pickle or a saved model holds what predictions need: the stages after the cut, the head, and how images are
    prepared. Frozen stages with published weights are left out; they are loaded again by name when they are first
    needed, and their checksum is compared. Frozen stages with random weights or those of a local file are included.

    References
    ----------
    .. [1] A. Kumar, A. Raghunathan, R. Jones, T. Ma, P. Liang, "Fine-tuning can distort pretrained features and
       underperform out-of-distribution", ICLR 2022.
    .. [2] M. Tan, Q. V. Le, "EfficientNetV2: smaller models and faster training", ICML 2021.
    .. [3] J. Frankle, D. J. Schwab, A. S. Morcos, "Training BatchNorm and only BatchNorm: on the expressive power of
       random features in CNNs", ICLR 2021.
    .. [4] E. Ben Zaken, S. Ravfogel, Y. Goldberg, "BitFit: simple parameter-efficient fine-tuning for
       transformer-based masked language-models", ACL 2022.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sktransfer import FineTunedCNNClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> clf = FineTunedCNNClassifier(
    ...     freeze="all", image_shape=(8, 8), value_range=(0, 16), image_size=64, max_epochs=1, random_state=0
    ... )
    >>> clf.fit(X[:100], y[:100]).score(X[100:200], y[100:200]) > 0.95
    True
    """

    __module__ = "sktransfer"  # where users find it; files and pickles name it

    _parameter_constraints: dict[str, Any] = {
        **SHARED_CONSTRAINTS,
        "freeze": [Interval(Integral, 0, None, closed="left"), str],
        "tune": [StrOptions({"all", "norm", "bias"})],
        "lr": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "lr_factor": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 0, None, closed="left"), StrOptions({"auto"})],
        "augment": [StrOptions(set(AUGMENTATIONS)), callable, None],
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "tta": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
        "head_hidden": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean", Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "callbacks": [list, None],
        "net_params": [dict, None],
        "warm_start": ["boolean"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: StrPath | None = "default",
        freeze: int | str = "auto",
        tune: str = "all",
        lr: float | Auto = "auto",
        lr_factor: float = 0.1,
        max_epochs: int | Auto = "auto",
        batch_size: int = 32,
        augment: str | Augmentation | None = None,
        n_views: int | None = None,
        tta: int | Auto = "auto",
        head_hidden: Sequence[int] = (),
        dropout: float = 0.2,
        weight_decay: float = 0.01,
        class_weight: dict[Any, float] | str | None = None,
        early_stopping: bool | int = False,
        validation_fraction: float = 0.1,
        callbacks: list[Any] | None = None,
        net_params: dict[str, Any] | None = None,
        image_size: int | Sequence[int] | None = None,
        crop: bool | Auto = "auto",
        resize: str = "auto",
        image_shape: Sequence[int] | None = None,
        value_range: str | Sequence[float] = "auto",
        precision: str = "float32",
        device: str = "auto",
        memory: Any = None,
        n_jobs: int | None = None,
        warm_start: bool = False,
        random_state: int | np.random.RandomState | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.freeze = freeze
        self.tune = tune
        self.lr = lr
        self.lr_factor = lr_factor
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.augment = augment
        self.n_views = n_views
        self.tta = tta
        self.head_hidden = head_hidden
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.net_params = net_params
        self.image_size = image_size
        self.crop = crop
        self.resize = resize
        self.image_shape = image_shape
        self.value_range = value_range
        self.precision = precision
        self.device = device
        self.memory = memory
        self.n_jobs = n_jobs
        self.warm_start = warm_start
        self.random_state = random_state
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train on images and labels.

        Parameters
        ----------
        X : images
            A list, Series or array of file paths, file contents (bytes), PIL images, arrays or tensors, of
            any sizes; or one array (n, H, W), (n, H, W, C) or (n, C, H, W); or flat rows with `image_shape`.
        y : array-like of shape (n_images,)
            Labels of any type.
        sample_weight : array-like of shape (n_images,), default=None
            How much each image counts in the loss.

        Returns
        -------
        self : FineTunedCNNClassifier
            The fitted classifier.

        Raises
        ------
        ImageError
            If an image cannot be read. The message names it.
        LabelError
            If a label is missing, if there is only one class, or if `early_stopping` is on and a class has one image.
        TrainingError
            If the loss is no longer a number.
        """
        check_net_params(self)
        with whole_or_nothing(self):
            self._fit(X, y, sample_weight)
        return self

    def _fit(self, X: Any, y: Any, sample_weight: Any) -> None:
        images = check_images(self, X, reset=True)
        if len(images) < 2:
            raise ValueError(f"Found n_samples={len(images)} image(s); training needs at least 2.")
        y = check_labels(y, len(images))
        if self.early_stopping:
            advice = "Add images, leave that class out, or set early_stopping=False."
            check_class_sizes(y, 2, "early_stopping", advice)
        classes, codes = np.unique(y, return_inverse=True)
        weights = self._weights(y, sample_weight)
        # The weights get mean 1. Gradients are clipped, so a common factor would change the steps.
        examples = Examples(images, codes, (weights / weights.mean()).astype(np.float32))

        trained = self if self.warm_start and hasattr(self, "net_") else None
        if trained is not None:
            self._check_same_classes(classes)
        backbone, seed = self._start(anew=trained is None)
        body = self._body(backbone, resolve_freeze(self.freeze, backbone))
        net, history = train(self, body, examples, len(classes), seed, trained)

        vars(self).pop("_ongoing", None)
        self._keep(classes, body.n_frozen, backbone, seed)
        self.net_, self.history_ = net, history

    @fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train for one epoch on these images, at constant learning rates.

        The first call starts a new model, or continues from `fit`. Parameters that are changed between calls take
        effect at the next `fit`.

        Parameters
        ----------
        X : images
            As in `fit`.
        y : array-like of shape (n_images,)
            Labels.
        classes : array-like of shape (n_classes,), default=None
            All labels that will ever occur. The first call needs them.
        sample_weight : array-like of shape (n_images,), default=None
            How much each image counts in the loss.

        Returns
        -------
        self : FineTunedCNNClassifier
            The classifier, trained for one more epoch.
        """
        check_net_params(self)
        with whole_or_nothing(self):
            self._partial_fit(X, y, classes, sample_weight)
        return self

    def _partial_fit(self, X: Any, y: Any, classes: Any, sample_weight: Any) -> None:
        first = not hasattr(self, "net_")
        if first and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit.")
        if self.early_stopping or self.class_weight == "balanced":
            raise ValueError(
                "partial_fit sees too few images at a time for early_stopping and class_weight='balanced'. "
                "Leave both at their defaults; pass sample_weight or a dict as class_weight."
            )
        images = check_images(self, X, reset=first)
        y = check_labels(y, len(images), n_classes=1)
        classes = self.classes_ if classes is None else np.unique(check_labels(classes, name="classes"))
        if not first:
            self._check_same_classes(classes)
        labels = encoded(y, classes)
        # Not scaled to mean 1: the weights also weigh the images of one call against those of another.
        examples = Examples(images, labels, self._weights(y, sample_weight).astype(np.float32))

        backbone, seed = self._start(anew=first)
        n_frozen = resolve_freeze(self.freeze, backbone) if first else self.n_frozen_stages_
        body = self._body(backbone, n_frozen)
        ongoing = getattr(self, "_ongoing", None)
        if ongoing is None:
            ongoing = OngoingTraining(self, body, examples, len(classes), seed, None if first else self)
        ongoing.go_on(self, body, examples)

        self._keep(classes, n_frozen, backbone, seed)
        self._ongoing = ongoing
        self.net_, self.history_ = ongoing.net, ongoing.record.epochs_

    def _start(self, *, anew: bool) -> tuple[Backbone, int]:
        """Return the backbone and the seed of a new training, or those of the training that is continued."""
        start_clean_after_fork()
        if not anew:
            return self._fitted_backbone(), self._seed
        seed = int(check_random_state(self.random_state).randint(2**31))
        return load_backbone(self.backbone, self.weights, seed), seed

    def _weights(self, y: np.ndarray, sample_weight: Any) -> np.ndarray:
        """Return how much each image counts: its own weight times that of its class."""
        own = check_sample_weight(sample_weight, y, ensure_non_negative=True)
        weights: np.ndarray = own * compute_sample_weight(self.class_weight, y)
        return weights

    def _body(self, backbone: Backbone, n_frozen: int) -> FrozenBody:
        return FrozenBody(make_extractor(self, as_seen(self, backbone)), n_frozen)

    def predict_proba(self, X: Any) -> NDArray[np.float32]:
        """Return the probability of each class.

        Parameters
        ----------
        X : images
            As in `fit`. They are read one batch at a time.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes), float32
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        start_clean_after_fork()
        images = check_images(self, X, reset=False)
        device = resolve_device(self.device)
        network, parts = self.net_.module_.eval().to(device), Halving(self.batch_size)
        body = self._body(self._fitted_backbone(), self.n_frozen_stages_)

        def probabilities(activations: np.ndarray) -> NDArray[np.float32]:
            def run(rows: slice) -> NDArray[np.float32]:
                logits: torch.Tensor = network(torch.from_numpy(activations[rows]).to(device))
                return logits.softmax(dim=1).cpu().numpy()

            return np.concatenate(parts(run, len(activations)))

        with torch.inference_mode():
            plain = np.concatenate([probabilities(block) for block in body.blocks(images)])
            n_views = resolve_tta(self)
            if n_views == 1:
                return plain
            views = make_views(self, n_views - 1)
            blocks = [probabilities(np.concatenate(block)) for block in body.blocks(images, views)]
        augmented = np.concatenate(blocks).reshape(len(plain), -1, plain.shape[1])
        mean: NDArray[np.float32] = (plain + augmented.sum(axis=1)) / n_views
        return mean

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
        columns: NDArray[np.intp] = self.predict_proba(X).argmax(axis=1)
        return self.classes_[columns]

    def _keep(self, classes: np.ndarray, n_frozen: int, backbone: Backbone, seed: int) -> None:
        self.classes_, self.n_frozen_stages_, self._seed = classes, n_frozen, seed
        self._keep_backbone(backbone)

    def _n_kept_stages(self) -> int:
        return self.n_frozen_stages_  # the others are in the trained network

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "net_")

    def _check_same_classes(self, classes: np.ndarray) -> None:
        if not np.array_equal(classes, self.classes_):
            raise ValueError(
                f"The classes are {classes.tolist()}, but the fitted model has {self.classes_.tolist()}. "
                "Pass the same classes, or fit a new model with warm_start=False."
            )

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_ongoing", None)
        net = state.pop("net_", None)
        if net is not None:
            state["_learned"] = {name: value.cpu().numpy() for name, value in net.module_.state_dict().items()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        learned = state.pop("_learned", None)
        super().__setstate__(state)
        if learned is not None:
            widths = [len(value) for name, value in learned.items() if name.startswith("head.") and value.ndim == 1]
            if widths != [*self.head_hidden, len(self.classes_)]:  # before a changed file makes it build a huge head
                raise WeightsMismatchError(f"The head has layers of {widths}, not what {self!r} says.")
            backbone = as_seen(self, self._backbone or self._skeleton(0, {}))
            network = new_network(self, backbone, self.n_frozen_stages_, len(self.classes_), self._seed)
            network.load_state_dict({name: torch.tensor(value) for name, value in learned.items()})
            recipe = resolve_recipe(self, 1, network.keep_statistics)
            self.net_ = new_net(self, network, recipe).initialize()

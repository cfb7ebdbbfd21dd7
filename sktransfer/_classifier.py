"""`FineTunedCNNClassifier`: images in, classes out; the stages after the cut are trained."""

from __future__ import annotations

import copy
import functools
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import LabelEncoder
from sklearn.utils import check_random_state, compute_sample_weight
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from skorch import NeuralNetClassifier
from skorch.callbacks import EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch.optim.lr_scheduler import LambdaLR

from ._backbones import Backbone
from ._engines import feature_counts, resolve_device
from ._extraction import Views
from ._finetuning import Record, TunedNetwork, WeightedCrossEntropy, fit_first_head, run, warmup_cosine
from ._images import Images
from ._inputs import (
    SHARED_CONSTRAINTS,
    check_images,
    check_images_and_target,
    make_extractor,
    resolve_backbone,
    resolve_stage,
)
from ._preprocessing import AUGMENTATIONS, resolve_augmentation
from ._training_data import EvenBatches, FrozenBody, TrainingSet


class FineTunedCNNClassifier(ClassifierMixin, BaseEstimator):
    """A pretrained convolutional network with a new head, trained on from a chosen depth.

    The first stages are frozen: they stay as they are, BatchNorm statistics included. The stages that follow
    learn at a tenth of the head's rate. The head starts as a logistic regression on the pretrained features.
    Training is skorch's; the network is in ``net_``.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all. The default comes with the package and works offline.
    weights : "default", path or None, default="default"
        ``"default"`` takes the published ImageNet weights. A path reads a ``.safetensors`` or ``.pth`` file,
        with or without the original head. None trains from scratch.
    freeze : int, str or "auto", default="auto"
        How deep to freeze. 0 freezes nothing; an integer k the first k stages; a stage's name every stage up
        to and including it; ``"all"`` the whole backbone, so that only the head learns. ``"auto"`` freezes the
        first half of the stages, or nothing when ``weights=None``.
    lr : float, default=1e-3
        Learning rate of the head, and of everything when ``weights=None``.
    lr_factor : float, default=0.1
        The pretrained stages that are not frozen learn at ``lr * lr_factor``.
    max_epochs : int, default=10
        How often to go through the training images.
    batch_size : int, default=32
        The largest number of images in one step.
    augment : {"photo", "any_orientation", "text"}, callable or None, default=None
        Random changes of the training images, never applied in `predict`. None trains on stored activations, so
        the frozen stages run once.
        ``"photo"`` flips, shifts, rotates, zooms and changes colours a little; ``"any_orientation"`` flips and
        turns, for cells, tiles and microscopes; ``"text"`` does not flip. A callable maps one uint8 tensor
        (3, H, W) to another, as torchvision's v2 transforms do.
    n_views : int or None, default=None
        None augments afresh each epoch, and runs the frozen stages each time. A number draws so many views of each
        image once, keeps their activations at the cut, and picks one of them each epoch, which is many times faster.
    head_hidden : tuple of int, default=()
        Widths of dense layers between the features and the classes.
    dropout : float, default=0.2
        Share of features dropped before each dense layer in training.
    weight_decay : float, default=0.01
        Of AdamW.
    class_weight : dict, "balanced" or None, default=None
        Weights of the classes, as in scikit-learn.
    early_stopping : bool or int, default=False
        Hold out `validation_fraction` of the images, stop when their loss has not improved for that many
        epochs (5 for True), and return to the best weights, which are kept in memory.
    validation_fraction : float, default=0.1
        Share of the training images held out for `early_stopping`.
    callbacks : list of skorch callbacks, default=None
        Passed on to skorch.
    net_params : dict, default=None
        Further parameters of `skorch.NeuralNetClassifier`, such as
        ``{"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9}``.
    image_size : int or (int, int), default=None
        Height and width in pixels of what the network sees; one number for a square. None takes the size
        the weights were trained at.
    image_shape : tuple of int, default=None
        Shape of one image when `X` holds flat rows, as `numpy.reshape` takes it: ``(8, 8)``,
        ``(32, 32, 3)``, ``(1, -1)``.
    value_range : "auto" or (float, float), default="auto"
        The values that mean black and white. ``"auto"``: 0 to 255 for uint8, 0 to 65535 for uint16, and
        floats must lie between 0 and 1.
    precision : {"float32", "bfloat16"}, default="float32"
        Number format of convolutions and matrix products.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``: a GPU where there is one.
    memory : None, path or joblib.Memory, default=None
        A folder to keep activations in, so that other processes and later days need not compute them again.
        Within one process they are kept in memory in any case; `set_cache_limits` bounds both.
    n_jobs : int, default=None
        Threads that decode images. None takes as many as torch uses; -1 takes all cores.
    random_state : int, RandomState or None, default=None
        With an int, two fits on the same images are the same.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    net_ : skorch.NeuralNetClassifier
        The trained net. Its input is the output of the frozen stages, its classes are positions in `classes_`.
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
    PretrainedCNNFeatures : Features for any scikit-learn estimator; the better choice for a few hundred images.

    Notes
    -----
    Only what was learned is pickled: the stages after the cut and the head. The frozen stages are looked up
    again by name, and their checksum compared.

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

    _parameter_constraints: dict = {
        **SHARED_CONSTRAINTS,
        "freeze": [Interval(Integral, 0, None, closed="left"), str],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "lr_factor": [Interval(Real, 0, None, closed="left")],
        "max_epochs": [Interval(Integral, 0, None, closed="left")],
        "augment": [StrOptions(set(AUGMENTATIONS)), callable, None],
        "n_views": [Interval(Integral, 1, None, closed="left"), None],
        "head_hidden": ["array-like"],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "class_weight": [StrOptions({"balanced"}), dict, None],
        "early_stopping": ["boolean", Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="neither")],
        "callbacks": [list, None],
        "net_params": [dict, None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        backbone="efficientnet_lite0",
        *,
        weights="default",
        freeze="auto",
        lr=1e-3,
        lr_factor=0.1,
        max_epochs=10,
        batch_size=32,
        augment=None,
        n_views=None,
        head_hidden=(),
        dropout=0.2,
        weight_decay=0.01,
        class_weight=None,
        early_stopping=False,
        validation_fraction=0.1,
        callbacks=None,
        net_params=None,
        image_size=None,
        image_shape=None,
        value_range="auto",
        precision="float32",
        device="auto",
        memory=None,
        n_jobs=None,
        random_state=None,
        verbose=0,
    ):
        self.backbone = backbone
        self.weights = weights
        self.freeze = freeze
        self.lr = lr
        self.lr_factor = lr_factor
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.augment = augment
        self.n_views = n_views
        self.head_hidden = head_hidden
        self.dropout = dropout
        self.weight_decay = weight_decay
        self.class_weight = class_weight
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.callbacks = callbacks
        self.net_params = net_params
        self.image_size = image_size
        self.image_shape = image_shape
        self.value_range = value_range
        self.precision = precision
        self.device = device
        self.memory = memory
        self.n_jobs = n_jobs
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
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

        Raises
        ------
        ImageError
            If an image cannot be read. The message names it.
        TrainingError
            If the loss is no longer a number.
        """
        images, y = check_images_and_target(self, X, y)
        check_classification_targets(y)
        if len(images) < 2:
            raise ValueError(f"Found n_samples={len(images)} image(s); training needs at least 2.")
        encoder = LabelEncoder().fit(y)
        sample_weight = _check_sample_weight(sample_weight, y, ensure_non_negative=True)
        weights = sample_weight * compute_sample_weight(self.class_weight, y)

        vars(self).pop("weights_checksum_", None)  # fitting again may take other weights
        seed = int(check_random_state(self.random_state).randint(2**31))
        backbone = resolve_backbone(self, seed)
        body = FrozenBody(make_extractor(self, backbone), self._resolve_freeze(backbone))
        # Every draw of torch's global generator lies within, so the user's own is left as it was.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            net, history = self._train(body, images, encoder.transform(y), weights, seed)

        # Only a fit that came to its end leaves a fitted estimator.
        self.classes_ = encoder.classes_
        self.n_frozen_stages_ = body.n_frozen
        self.weights_checksum_ = backbone.checksum
        self._seed = seed
        self.net_, self.history_ = net, history
        return self

    def predict_proba(self, X):
        """Return the probability of each class.

        Parameters
        ----------
        X : images
            As in `fit`. Read a batch at a time.

        Returns
        -------
        probabilities : ndarray of shape (n_images, n_classes), float32
            Columns in the order of `classes_`.
        """
        check_is_fitted(self)
        images = check_images(self, X, reset=False)
        backbone = resolve_backbone(self, self._seed)
        network = self.net_.module_.eval().to(resolve_device(self.device))
        body = FrozenBody(make_extractor(self, backbone), self.n_frozen_stages_)
        with torch.inference_mode():
            logits = [network(part).cpu().numpy() for block in body.blocks(images) for part in self._parts(block)]
        return softmax(np.concatenate(logits), axis=1)

    def predict(self, X):
        """Return the most probable class of each image.

        Parameters
        ----------
        X : images
            As in `fit`.

        Returns
        -------
        labels : ndarray of shape (n_images,)
        """
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(axis=1)]

    def _train(
        self, body: FrozenBody, images: Images, labels: np.ndarray, weights: np.ndarray, seed: int
    ) -> tuple[NeuralNetClassifier, list[dict[str, float]]]:
        backbone = body.extractor.backbone
        weights = (weights / weights.mean()).astype(np.float32)
        shuffler, viewer = (np.random.default_rng([seed, stream]) for stream in (0, 1))
        train, valid = self._split(labels, seed)
        train_set = self._training_set(body, images, train, labels, weights, viewer)
        valid_set = None
        if valid is not None:
            valid_set = TrainingSet(body.activations(images, valid), labels[valid], weights[valid], body.engine)

        network = self._new_network(backbone, body.n_frozen, int(labels.max()) + 1)
        record = Record(len(train), self.max_epochs, self.verbose)
        n_steps = self.max_epochs * len(EvenBatches(train_set, self.batch_size))
        net = self._new_net(network, shuffler, valid_set, record, n_steps).initialize()
        if backbone.pretrained:
            fit_first_head(network, body.features(images, train), labels[train], weights[train])
        run(net, train_set)
        return net, record.epochs_

    def _training_set(
        self,
        body: FrozenBody,
        images: Images,
        train: np.ndarray,
        labels: np.ndarray,
        weights: np.ndarray,
        viewer: np.random.Generator,
    ) -> TrainingSet:
        """Return the training images in the cheapest form that the augmentation allows."""
        target = labels[train], weights[train], body.engine
        augment = resolve_augmentation(self.augment)
        if augment is None:
            return TrainingSet(body.activations(images, train), *target)
        if self.n_views is None or body.n_frozen == 0:
            return TrainingSet(body.extractor.canvases(images, train), *target, augment, viewer)
        name = self.augment if isinstance(self.augment, str) else None
        # The views depend on random_state alone, not on the fold, so that folds share them.
        view_seed = int(self.random_state) if isinstance(self.random_state, Integral) else 0
        views = Views(augment, name, self.n_views, view_seed)
        return TrainingSet(body.activations(images, train, views), *target, rng=viewer, n_views=self.n_views)

    def _split(self, labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray | None]:
        if not self.early_stopping:
            return np.arange(len(labels)), None
        splitter = StratifiedShuffleSplit(n_splits=1, test_size=self.validation_fraction, random_state=seed)
        return next(splitter.split(labels, labels))

    def _new_network(self, backbone: Backbone, n_frozen: int, n_classes: int) -> TunedNetwork:
        (n_features,) = feature_counts(backbone, [len(backbone.stages)], "avg")
        network = TunedNetwork(
            copy.deepcopy(backbone.stages[n_frozen:]).requires_grad_(True),
            n_features,
            n_classes,
            head_hidden=self.head_hidden,
            dropout=self.dropout,
            keep_statistics=backbone.pretrained,
            low_precision=self.precision == "bfloat16",
        )
        return network.to(resolve_device(self.device)).to(memory_format=torch.channels_last)

    def _new_net(self, network, shuffler=None, valid_set=None, record=None, n_steps=1) -> NeuralNetClassifier:
        factor = self.lr_factor if self.weights is not None else 1.0
        callbacks: list[Any] = [] if record is None else [("record", record)]
        callbacks.append(("schedule", LRScheduler(LambdaLR, lr_lambda=warmup_cosine(n_steps), step_every="batch")))
        if self.early_stopping:
            patience = 5 if self.early_stopping is True else int(self.early_stopping)
            callbacks.append(
                ("early_stopping", EarlyStopping(patience=patience, load_best=True, sink=lambda message: None))
            )
        params: dict[str, Any] = {
            "criterion": WeightedCrossEntropy,
            "optimizer": torch.optim.AdamW,
            "optimizer__weight_decay": self.weight_decay,
            "optimizer__param_groups": [("stages.*", {"lr": self.lr * factor})],
            "lr": self.lr,
            "max_epochs": self.max_epochs,
            "batch_size": self.batch_size,
            "iterator_train": functools.partial(EvenBatches, rng=shuffler),
            "iterator_valid": EvenBatches,
            "train_split": predefined_split(valid_set) if valid_set is not None else None,
            "callbacks": [*callbacks, *(self.callbacks or [])],
            "callbacks__valid_acc": None,  # the record counts it, from labels without their weights
            "callbacks__print_log": None,
            "classes": np.arange(network.head[-1].out_features),
            "device": resolve_device(self.device),
            "verbose": self.verbose,
        }
        if params["device"].type == "cuda" and "optimizer" not in (self.net_params or {}):
            params["optimizer__fused"] = True
        return NeuralNetClassifier(network, **{**params, **(self.net_params or {})})

    def _parts(self, activations: np.ndarray) -> tuple[torch.Tensor, ...]:
        return torch.from_numpy(activations).to(resolve_device(self.device)).split(self.batch_size)

    def _resolve_freeze(self, backbone: Backbone) -> int:
        n_stages = len(backbone.stages)
        if self.freeze == "all":
            return n_stages
        if self.freeze == "auto":
            return n_stages // 2 if backbone.pretrained else 0
        if isinstance(self.freeze, str):
            return resolve_stage(self.freeze, backbone)
        if self.freeze > n_stages:
            raise ValueError(
                f"freeze={self.freeze} is out of range: {backbone.name!r} has {n_stages} stages, "
                f"{', '.join(backbone.stage_names)}. Pass 0 to {n_stages}, a stage's name, or 'all'."
            )
        return int(self.freeze)

    def __getstate__(self):
        state = dict(super().__getstate__())
        net = state.pop("net_", None)
        if net is not None:
            state["_learned"] = {name: value.cpu().numpy() for name, value in net.module_.state_dict().items()}
        return state

    def __setstate__(self, state):
        state = dict(state)
        learned = state.pop("_learned", None)
        super().__setstate__(state)
        if learned is not None:
            network = self._new_network(resolve_backbone(self, self._seed), self.n_frozen_stages_, len(self.classes_))
            network.load_state_dict({name: torch.tensor(value) for name, value in learned.items()})
            self.net_ = self._new_net(network).initialize()

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        return tags

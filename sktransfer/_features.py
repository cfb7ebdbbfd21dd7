"""`PretrainedCNNFeatures`: images in, bottleneck features out."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted

from ._frozen._backbones import load_backbone
from ._frozen._layout import POOLINGS
from ._images._bad_images import listed
from ._images._pillow_settings import TakesSettingsAlong
from ._parameters import SHARED_CONSTRAINTS, as_seen, make_extractor, resolve_outputs
from ._portable import Portable, whole_or_nothing
from ._protocols import Auto, StrPath
from ._registry import start_clean_after_fork
from ._sklearn_compat import StrOptions, fit_context
from ._validation import check_images


class PretrainedCNNFeatures(TakesSettingsAlong, TransformerMixin, Portable):
    """Bottleneck features of a pretrained convolutional network.

    Each image is resized, cropped and normalised as in pretraining, and run through the network's convolutional
    stages. The feature map is then pooled to a vector. A linear model or an SVM on these features works well for a
    few hundred images of nearly any kind [1]_.

    Parameters
    ----------
    backbone : str, default="efficientnet_lite0"
        The network; `list_backbones` names them all. The default comes with the package and works offline.
    weights : "default", path or None, default="default"
        ``"default"`` takes the published ImageNet weights. A path reads a ``.safetensors`` or ``.pth`` file,
        with or without the original head. None takes random weights, the same ones each time.
    layer : str or list of str, default="penultimate"
        The stage whose output gives the features: ``"stage1"``, ``"stage2"``, …, or ``"penultimate"``, which is the
        last one. ``"all"`` takes every stage. Features of several stages are concatenated in order of depth. Fully
        connected layers of networks such as VGG are left out.
    pooling : {"auto", "avg", "max", "avgmax", "avgstd", "token", "avg+token", "flatten"}, default="auto"
        How a map of shape (C, h, w) becomes a vector: by its mean or maximum over h and w (C features), by both
        (2 C features), by mean and standard deviation (2 C features), or by all values (C h w features). ``"token"``
        takes the class token of a transformer, and ``"avg+token"`` the mean of its other tokens beside it. ``"auto"``
        is the pooling that the weights were trained with: the class token for many transformers, and ``"avg"`` for
        the other networks.
    normalize : bool, default=False
        Divide the features of each stage by their Euclidean norm, so that each stage weighs as much as the others.
    image_size : int or (int, int), default=None
        Height and width in pixels of the network's input; one number means a square. None takes the size that the
        weights were trained at.
    crop : bool or "auto", default=True
        Whether to use only the central part of an image, as in the evaluation of the weights: most often 224 of 256
        pixels. False without an `image_size` uses all 256. ``"auto"`` crops if `image_size` is given.
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
    batch_size : int, default=32
        How many images to run at once. It changes speed and memory, not the result.
    engine : {"auto", "openvino", "torch"}, default="auto"
        The library that runs the network. ``"auto"`` takes OpenVINO on a CPU if it is installed
        (``pip install 'sktransfer[openvino]'``). It is 1.5 times as fast as torch in float32, and 2.7 times in bfloat16
        (``docs/benchmarks/extraction.md``, arrays in memory). The features of both agree to 1e-4 of their size.
    precision : {"float32", "bfloat16"}, default="float32"
        Number format of convolutions and matrix products. Results are float32 in both cases.
    device : str, default="auto"
        ``"cpu"``, ``"cuda"``, ``"mps"``, or ``"auto"``, which uses a GPU if one exists.
    memory : None, path or joblib.Memory, default=None
        A folder that stores activations, so that other processes and later sessions need not compute them again.
        Within one process they are always kept in memory. `set_cache_limits` limits both.
    n_jobs : int, default=None
        Number of threads that decode images. None uses as many as torch; -1 uses all cores.
    on_error : {"raise", "nan"}, default="raise"
        What to do with images that cannot be read. ``"raise"`` raises an `ImageError` that lists them: after the first,
        the rest are only decoded, for at most a minute, to find the others. ``"nan"`` sets their features to NaN and
        lists them in a warning. `find_bad_images` finds them beforehand.
    verbose : int, default=0
        1 shows a progress bar.

    Attributes
    ----------
    n_features_out_ : int
        Number of features.
    weights_checksum_ : str
        SHA-256 of the weights. `transform` refuses to run with others.
    n_features_in_ : int
        Number of columns, if `X` holds flat rows.
    feature_names_in_ : ndarray of shape (`n_features_in_`,)
        Names of the columns, if `X` is a frame of flat rows.

    See Also
    --------
    FineTunedCNNClassifier : Train the last stages of the network too.

    Notes
    -----
    ``fit`` learns nothing from the images. It checks the parameters and records which weights are used, so
    features may be extracted before cross-validation as well as within it.

    The network is always in eval mode. Published weights are not pickled. They are loaded again by name when they are
    first needed, and their checksum is compared. Random weights and those of a local file are pickled.

    References
    ----------
    .. [1] A. S. Razavian, H. Azizpour, J. Sullivan, S. Carlsson, "CNN features off-the-shelf: an astounding
       baseline for recognition", CVPR workshops 2014.

    Examples
    --------
    >>> from sklearn.datasets import load_sample_images
    >>> from sktransfer import PretrainedCNNFeatures
    >>> photos = load_sample_images().images  # two photos, uint8 (427, 640, 3)
    >>> PretrainedCNNFeatures().fit_transform(photos).shape
    (2, 1280)
    """

    __module__ = "sktransfer"  # where users find it; files and pickles name it

    _parameter_constraints: dict[str, Any] = {
        **SHARED_CONSTRAINTS,
        "layer": [str, list, tuple],
        "pooling": [StrOptions({"auto", *POOLINGS})],
        "normalize": ["boolean"],
        "engine": [StrOptions({"auto", "openvino", "torch"})],
        "on_error": [StrOptions({"raise", "nan"})],
    }

    def __init__(
        self,
        backbone: str = "efficientnet_lite0",
        *,
        weights: StrPath | None = "default",
        layer: str | Sequence[str] = "penultimate",
        pooling: str = "auto",
        normalize: bool = False,
        image_size: int | Sequence[int] | None = None,
        crop: bool | Auto = True,
        resize: str = "auto",
        image_shape: Sequence[int] | None = None,
        value_range: str | Sequence[float] = "auto",
        batch_size: int = 32,
        engine: str = "auto",
        precision: str = "float32",
        device: str = "auto",
        memory: Any = None,
        n_jobs: int | None = None,
        on_error: str = "raise",
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.weights = weights
        self.layer = layer
        self.pooling = pooling
        self.normalize = normalize
        self.image_size = image_size
        self.crop = crop
        self.resize = resize
        self.image_shape = image_shape
        self.value_range = value_range
        self.batch_size = batch_size
        self.engine = engine
        self.precision = precision
        self.device = device
        self.memory = memory
        self.n_jobs = n_jobs
        self.on_error = on_error
        self.verbose = verbose

    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any = None) -> Self:
        """Check the parameters and the kind of images, and record which weights are used.

        Parameters
        ----------
        X : images
            A list, Series or array of file paths, file contents (bytes), PIL images, arrays or tensors, of
            any sizes; or one array (n, H, W), (n, H, W, C) or (n, C, H, W); or flat rows with `image_shape`.
            `fit` does not read them, except to check flat rows.
        y : ignored
            Present for API consistency.

        Returns
        -------
        self : PretrainedCNNFeatures
            The fitted transformer.
        """
        with whole_or_nothing(self):
            check_images(self, X, reset=True)
            backbone = load_backbone(self.backbone, self.weights)
            outputs = resolve_outputs(self.layer, self.pooling, backbone)
            counts = outputs.feature_counts(as_seen(self, backbone))
            stages = [backbone.stage_names[cut - 1] for cut in outputs.cuts]
            self._feature_counts = dict(zip(stages, counts, strict=True))
            self.n_features_out_ = sum(counts)
            self._keep_backbone(backbone)
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Compute the features of each image.

        Parameters
        ----------
        X : images
            As in `fit`. They are read one batch at a time.

        Returns
        -------
        features : ndarray of shape (n_images, n_features), float32
            One row for each image. `get_feature_names_out` names the columns.

        Raises
        ------
        ImageError
            If images cannot be read and `on_error` is "raise". The message lists them; ``bad_images`` holds them.

        Warns
        -----
        RuntimeWarning
            If images cannot be read and `on_error` is "nan". The message lists them.
        """
        check_is_fitted(self)
        start_clean_after_fork()
        images = check_images(self, X, reset=False)
        backbone = as_seen(self, self._fitted_backbone())
        extractor, outputs = make_extractor(self, backbone), resolve_outputs(self.layer, self.pooling, backbone)
        if self.on_error == "nan":
            features, bad = extractor.run_readable(images, outputs)
            if bad:
                message = f"Cannot read {len(bad)} of {len(images)} images; their features are NaN:\n{listed(bad)}"
                warnings.warn(message, RuntimeWarning, stacklevel=2)
        else:
            features = extractor.run(images, outputs)
        if self.normalize:
            ends = np.cumsum(list(self.feature_counts_.values()))
            for part in np.split(features, ends[:-1], axis=1):  # views, changed in place
                norms = np.linalg.norm(part, axis=1, keepdims=True)
                part /= np.where(norms == 0, 1, norms)
        return features

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Name the features after their stage: ``"stage8_0"``, ``"stage8_1"``, ….

        Parameters
        ----------
        input_features : ignored
            Present for API consistency.

        Returns
        -------
        names : ndarray of str objects
            One name for each column.
        """
        check_is_fitted(self)
        names = [f"{stage}_{i}" for stage, count in self.feature_counts_.items() for i in range(count)]
        return np.asarray(names, dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_features_out_")

    @property
    def feature_counts_(self) -> dict[str, int]:
        """Number of features of each stage in `layer`, in the order of their columns."""
        return self._feature_counts

    @property
    def stage_columns_(self) -> list[list[slice]]:
        """Columns of each stage in `layer`: one slice, or two where `pooling` gives means and something else."""
        n_parts = 2 if self.pooling in ("avgmax", "avgstd", "avg+token") else 1
        ends = np.cumsum([count // n_parts for count in self.feature_counts_.values() for _ in range(n_parts)])
        parts = [slice(int(start), int(end)) for start, end in zip([0, *ends], ends, strict=False)]
        return [parts[i : i + n_parts] for i in range(0, len(parts), n_parts)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # float32 whatever comes in
        return tags

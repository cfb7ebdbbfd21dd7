"""Apply a pretrained CNN to your own images, as a scikit-learn estimator.

Names are imported when first used, so ``import sktransfer`` does not pay for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import datasets
    from ._card import card
    from ._classifier import FineTunedCNNClassifier
    from ._displays import (
        FreezeDepthDisplay,
        GradCAMDisplay,
        MistakesDisplay,
        StrategyComparisonDisplay,
        TrainingHistoryDisplay,
    )
    from ._exceptions import (
        BackboneError,
        BadImage,
        DeviceMemoryError,
        ExportError,
        ImageError,
        LabelError,
        ModelFileError,
        SktransferError,
        TrainingError,
        UnknownBackboneError,
        WeightsMismatchError,
        WeightsNotFoundError,
    )
    from ._export._formats import export
    from ._feature_classifier import FeatureClassifier, make_feature_classifier
    from ._features import PretrainedCNNFeatures
    from ._frozen._catalogue import list_backbones
    from ._frozen._store import CacheInfo, cache_info, clear_cache, set_cache_limits
    from ._images._bad_images import find_bad_images
    from ._images._duplicates import find_duplicates
    from ._persistence import load, save
    from ._show_versions import show_versions
    from ._strategies._candidates import make_strategies
    from ._strategies._race import compare_strategies
    from ._strategies._ranking import RankedBackbone, rank_backbones
    from ._strategies._recommendation import Recommendation, recommend_strategy
    from ._strategies._result import StrategyComparison

__version__ = "0.1.0"

__all__ = [
    "BackboneError",
    "BadImage",
    "CacheInfo",
    "DeviceMemoryError",
    "ExportError",
    "FeatureClassifier",
    "FineTunedCNNClassifier",
    "FreezeDepthDisplay",
    "GradCAMDisplay",
    "ImageError",
    "LabelError",
    "MistakesDisplay",
    "ModelFileError",
    "PretrainedCNNFeatures",
    "RankedBackbone",
    "Recommendation",
    "SktransferError",
    "StrategyComparison",
    "StrategyComparisonDisplay",
    "TrainingError",
    "TrainingHistoryDisplay",
    "UnknownBackboneError",
    "WeightsMismatchError",
    "WeightsNotFoundError",
    "cache_info",
    "card",
    "clear_cache",
    "compare_strategies",
    "datasets",
    "export",
    "find_bad_images",
    "find_duplicates",
    "list_backbones",
    "load",
    "make_feature_classifier",
    "make_strategies",
    "rank_backbones",
    "recommend_strategy",
    "save",
    "set_cache_limits",
    "show_versions",
]

_HOME = {
    **dict.fromkeys(["CacheInfo", "cache_info", "clear_cache", "set_cache_limits"], "._frozen._store"),
    "card": "._card",
    "FineTunedCNNClassifier": "._classifier",
    "StrategyComparison": "._strategies._result",
    **dict.fromkeys(["FeatureClassifier", "make_feature_classifier"], "._feature_classifier"),
    "PretrainedCNNFeatures": "._features",
    **dict.fromkeys(
        [
            "FreezeDepthDisplay",
            "GradCAMDisplay",
            "MistakesDisplay",
            "StrategyComparisonDisplay",
            "TrainingHistoryDisplay",
        ],
        "._displays",
    ),
    # Not for users, but named in saved models, so that their file may be moved.
    **dict.fromkeys(["CheckedGridSearchCV", "OneThreadLogisticRegression"], "._linear"),
    "export": "._export._formats",
    "find_bad_images": "._images._bad_images",
    "find_duplicates": "._images._duplicates",
    "list_backbones": "._frozen._catalogue",
    **dict.fromkeys(["load", "save"], "._persistence"),
    **dict.fromkeys(["RankedBackbone", "rank_backbones"], "._strategies._ranking"),
    **dict.fromkeys(["Recommendation", "recommend_strategy"], "._strategies._recommendation"),
    "show_versions": "._show_versions",
    "compare_strategies": "._strategies._race",
    "make_strategies": "._strategies._candidates",
}


def __getattr__(name: str) -> object:
    if name == "datasets":
        return importlib.import_module(".datasets", __name__)
    if name not in __all__ and name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME.get(name, "._exceptions"), __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

"""Plots in scikit-learn's Display form: ``from_…`` computes and draws, ``plot`` draws again."""

from ._comparison import StrategyComparisonDisplay
from ._freeze_depth import FreezeDepthDisplay
from ._grad_cam import GradCAMDisplay
from ._history import TrainingHistoryDisplay
from ._mistakes import MistakesDisplay

__all__ = [
    "FreezeDepthDisplay",
    "GradCAMDisplay",
    "MistakesDisplay",
    "StrategyComparisonDisplay",
    "TrainingHistoryDisplay",
]

"""Handle failures in a comparison: a strategy or backbone that fails is named with the reason; the others go on."""

from __future__ import annotations

from collections.abc import Mapping

from .._exceptions import ImageError, TrainingError

_LONGEST = 300  # characters of a reason, because it is one line of a table


def raise_if_images_are_bad(error: Exception) -> None:
    """Raise an error that comes from unreadable images, because it concerns all strategies or backbones."""
    if isinstance(error, ImageError) and error.bad_images:
        raise error


def in_a_line(error: Exception) -> str:
    """Return the type of an error and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"


def raise_all(what: str, errors: Mapping[str, Exception]) -> None:
    """Raise an error that says that each has failed, or the error itself if all failed for the same reason."""
    reasons = {name: in_a_line(error) for name, error in errors.items()}
    first = next(iter(errors.values()))
    if len(set(reasons.values())) == 1:
        raise first
    lines = "\n".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise TrainingError(f"{what}:\n{lines}") from first

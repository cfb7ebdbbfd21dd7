"""A race that always ends: an exception costs the one competitor it came from, which is named with the reason."""

from __future__ import annotations

from collections.abc import Mapping

from .._exceptions import ImageError, TrainingError

_LONGEST = 300  # characters of a reason, which is a line of a table


def raise_if_images_are_bad(error: Exception) -> None:
    """Raise what is a fault of the images, which all competitors share."""
    if isinstance(error, ImageError) and error.bad_images:
        raise error


def in_a_line(error: Exception) -> str:
    """Return the type of an error and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST else text[:_LONGEST] + '…'}"


def raise_all(what: str, errors: Mapping[str, Exception]) -> None:
    """Raise that each has failed; the error itself where all failed for the same reason."""
    reasons = {name: in_a_line(error) for name, error in errors.items()}
    first = next(iter(errors.values()))
    if len(set(reasons.values())) == 1:
        raise first
    lines = "\n".join(f"{name}: {reason}" for name, reason in reasons.items())
    raise TrainingError(f"{what}:\n{lines}") from first

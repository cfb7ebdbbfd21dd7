"""Halve a batch once, with a warning, if it does not fit the device's memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TypeVar

import torch

from .._exceptions import DeviceMemoryError

T = TypeVar("T")

# Words in the error messages of torch's allocators, and of libraries with their own memory, such as cuDNN and cuBLAS.
_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed", "allocation_failed")


class Halving:
    """Runs a batch in parts of `size` images, or without a size as a whole.

    If a part does not fit the device's memory, parts are half as large from then on.
    """

    def __init__(self, size: int | None = None) -> None:
        self.size = size
        self.halved = False

    def __call__(self, run: Callable[[slice], T], n: int) -> list[T]:
        """Return the results of `run` for each part of a batch of `n`; after halving, it starts again at the first."""
        size = min(self.size or n, n)
        try:
            return [run(slice(first, min(first + size, n))) for first in range(0, n, size)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.halved or size == 1:
                raise DeviceMemoryError(
                    f"{size} image(s) at a time do not fit the memory of the device: {error}\nPass a smaller "
                    "batch_size or image_size, or device='cpu'."
                ) from error
        # This is outside the handler, because the error's traceback keeps the tensors that filled the memory.
        self.halved, self.size = True, (size + 1) // 2
        torch.cuda.empty_cache()  # cuDNN and cuBLAS cannot use memory that torch keeps; does nothing without CUDA
        warnings.warn(
            f"{size} images at a time do not fit the memory of the device; going on with {self.size}. Pass "
            f"batch_size={self.size} to start with that.",
            RuntimeWarning,
            stacklevel=2,
        )
        return self(run, n)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that memory is full; among torch's devices only CUDA has its own error class."""
    message = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(words in message for words in _SIGNS)

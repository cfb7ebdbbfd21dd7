"""Compute the activations of images at a cut: look up, decode while computing, store, show progress."""

from __future__ import annotations

import functools
import math
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tqdm.auto import tqdm

from .._exceptions import BadImage, ImageError
from .._images._bad_images import with_all_others
from .._images._collection import Images
from .._images._decoding import decoder_identity
from .._progress import map_ahead, progress_bar
from .._threads import decoding_threads
from ._augmentation import Views, augment_canvas
from ._backbones import Backbone
from ._cut_network import Outputs
from ._engines import Engine, engine_identity, make_engine, resolve_engine
from ._keys import Origin, fingerprint, row_key
from ._store import ActivationStore

T = TypeVar("T")

SPILL_BYTES = 2**30  # larger activations of a training set are kept in a memory-mapped file
_FILL = 2**20  # number of bytes written at a time to fill a file
_CHUNK = 8  # number of images that one thread looks up or decodes at a time


class _Prepared(NamedTuple):
    """One row after a thread has prepared it: the finished row, a stored map, or a canvas."""

    slot: int
    key: bytes | None
    start: int | None  # the cut from which to compute; None if the row is finished
    array: np.ndarray
    faults: Sequence[BadImage] = ()  # not empty if the image cannot be read; then there is no row


class Extractor:
    """Computes the activations of one backbone at any cut. Rows that the store holds are not computed again.

    Activations have their channels last: maps are (n, h, w, C), as canvases are (n, H, W, 3). The threads that
    `n_jobs` counts look up and decode.
    """

    def __init__(
        self,
        backbone: Backbone,
        store: ActivationStore | None,
        *,
        engine: str = "auto",
        device: torch.device,
        precision: str = "float32",
        batch_size: int = 32,
        n_jobs: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.backbone = backbone
        self.store = store
        self.engine_name = resolve_engine(engine, device)
        self.device = device
        self.precision = precision
        self.batch_size = batch_size
        self.n_jobs = n_jobs
        self.verbose = verbose

    def engine(self, outputs: Outputs, start: int = 0) -> Engine:
        """Return the engine that runs the stages from `start` to the last cut."""
        return make_engine(
            self.backbone,
            outputs,
            start,
            engine=self.engine_name,
            device=self.device,
            precision=self.precision,
        )

    def run(
        self,
        images: Images,
        outputs: Outputs,
        *,
        indices: Sequence[int] | np.ndarray | None = None,
        views: Views | None = None,
        spill: bool = False,
        bar: tqdm | None = None,
    ) -> np.ndarray:
        """Return the activations of images (by default all) in order, float32 (n, n_features) or (n, h, w, C).

        Views take the place of the images; the result is then (n, K, …). With `spill`, large results lie in a
        memory-mapped file. Without a `bar` to advance, a new one is shown.
        """
        indices = np.arange(len(images)) if indices is None else np.asarray(indices)
        rows, _ = self._rows(_Lookup(self, images, indices, outputs, views, tolerant=False), spill, bar)
        values = rows.values()
        return values if views is None else values.reshape(len(indices), views.count, *values.shape[1:])

    def run_readable(self, images: Images, outputs: Outputs) -> tuple[np.ndarray, list[BadImage]]:
        """Return the pooled features of all images, NaN for those that cannot be read, and these images."""
        lookup = _Lookup(self, images, np.arange(len(images)), outputs, None, tolerant=True)
        rows, bad = self._rows(lookup, False, None)
        if len(bad) == len(images):
            return np.full((len(images), sum(outputs.feature_counts(self.backbone))), np.nan, np.float32), bad
        values = rows.values()
        values[[image.index for image in bad]] = np.nan
        return values, bad

    def _rows(self, lookup: _Lookup, spill: bool, bar: tqdm | None) -> tuple[_Rows, list[BadImage]]:
        """Fill the rows of a lookup, in whatever order they are ready, and list the images that cannot be read."""
        n, n_views, outputs = len(lookup.indices), lookup.n_views, lookup.origin.outputs
        bad: list[BadImage] = []
        rows = _Rows(n * n_views, spill)
        waiting: dict[int, list[_Prepared]] = defaultdict(list)
        own_bar = bar if bar is not None else progress_bar(n, "Extracting features", self.verbose)
        for chunk in self._ahead(lookup, lookup.images, n, n_views):
            for prepared in chunk:
                if prepared.faults:
                    bad.extend(prepared.faults)
                    continue
                if prepared.start is None:
                    rows.place(prepared.slot, prepared.array)
                    continue
                batch = waiting[prepared.start]
                batch.append(prepared)
                if len(batch) == self.batch_size:
                    self._compute(self.engine(outputs, prepared.start), batch, rows)
                    batch.clear()
            own_bar.update(len(chunk) // n_views)
        for start, batch in waiting.items():
            if batch:
                self._compute(self.engine(outputs, start), batch, rows)
        if bar is None:
            own_bar.close()
        return rows, sorted(bad, key=lambda image: image.index)  # `_ahead` may not start at the first image

    def blocks(
        self, images: Images, outputs: Outputs, description: str, views: Views | None = None
    ) -> Iterator[np.ndarray]:
        """Yield the activations of images in order, a few batches at a time, so that the memory needed is limited."""
        size = max(1, 8 * self.batch_size // (views.count if views is not None else 1))
        with progress_bar(len(images), description, self.verbose) as bar:
            for first in range(0, len(images), size):
                indices = np.arange(first, min(first + size, len(images)))
                yield self.run(images, outputs, indices=indices, views=views, bar=bar)

    def canvases(self, images: Images, indices: np.ndarray) -> np.ndarray:
        """Return canvases, uint8 (n, H, W, 3). They are not stored, because computing them again is cheap."""
        rows = _Rows(len(indices), spill=True)
        preprocessing = self.backbone.preprocessing

        def prepare(slots: range) -> list[np.ndarray]:
            return [preprocessing.canvas(images.decode(int(indices[slot]), preprocessing.least_side)) for slot in slots]

        slot = 0
        for chunk in self._ahead(prepare, images, len(indices), 1, shared=False):
            for canvas in chunk:
                rows.place(slot, canvas)
                slot += 1
        return rows.values()

    def _compute(self, engine: Engine, batch: list[_Prepared], rows: _Rows) -> None:
        results = engine(np.stack([prepared.array for prepared in batch])).cpu().numpy()
        for prepared, result in zip(batch, results, strict=True):
            row = np.array(result, order="C")  # a copy: a view would keep the whole batch alive in the store
            rows.place(prepared.slot, row)
            if self.store is not None and prepared.key is not None:
                self.store.put(prepared.key, row)

    def _ahead(
        self, prepare: Callable[[range], list[T]], images: Images, n: int, n_views: int, shared: bool = True
    ) -> Iterator[list[T]]:
        """Yield ``prepare(slots)`` for chunks of slots; threads work ahead, by at most two batches.

        Each process that shares a folder starts at its own place, so that no two of them compute the same images at
        the same time. When one arrives where another started, the rows are already stored.
        """
        size = max(1, _CHUNK // n_views)
        chunks = [range(first, min(first + size, n)) for first in range(0, n, size)]
        if shared and self.store is not None and self.store.disk is not None:
            offset = _own_place(len(chunks))
            chunks = chunks[offset:] + chunks[:offset]
        workers = decoding_threads(self.n_jobs)
        depth = max(2, 2 * self.batch_size // (size * n_views), workers)
        try:
            yield from map_ahead(prepare, chunks, workers, depth)
        except ImageError as error:
            raise with_all_others(error, images, self.backbone.preprocessing.least_side, workers) from error


class _Lookup:
    """The work of one thread on a chunk of images: fingerprint, look up, and if necessary decode and augment."""

    def __init__(
        self,
        extractor: Extractor,
        images: Images,
        indices: np.ndarray,
        outputs: Outputs,
        views: Views | None,
        tolerant: bool,
    ) -> None:
        self.images, self.indices, self.views, self.tolerant = images, indices, views, tolerant
        self.n_views = 1 if views is None else views.count
        self.preprocessing = extractor.backbone.preprocessing
        nameless = views is not None and views.name is None
        # Canvases are computed again quickly, and normalised as float32 they would fill the store.
        self.store = None if nameless or outputs.cuts == (0,) else extractor.store
        backbone = extractor.backbone
        self.origin = Origin(
            backbone=" ".join(backbone.identity),
            preprocessing=self.preprocessing,
            value_range=images.value_range,
            decoder=decoder_identity(),
            engine=engine_identity(extractor.engine_name, extractor.device, extractor.precision),
            outputs=outputs,
        )
        # Keys under which a row may be found, and its columns. Stored features of all stages contain those needed.
        self.sources: list[tuple[Origin, np.ndarray | None]] = [(self.origin, None)]
        if self.store is not None and outputs.pooling is not None:
            widers = _wider(outputs, backbone, exact=extractor.precision == "float32")
            self.sources += [(replace(self.origin, outputs=wider), columns) for wider, columns in widers]

    @functools.cached_property
    def maps(self) -> list[tuple[int, Origin]]:
        """Stored maps at shallower cuts, the deepest first; each saves the decoding and the stages before it."""
        outputs = self.origin.outputs
        deepest = outputs.cuts[0] if outputs.pooling is not None else outputs.cuts[0] - 1
        return [(start, replace(self.origin, outputs=Outputs((start,), None))) for start in range(deepest, 0, -1)]

    def __call__(self, slots: range) -> list[_Prepared]:
        return [row for slot in slots for row in self._rows_or_fault(slot)]

    def _rows_or_fault(self, slot: int) -> list[_Prepared]:
        try:
            return self._rows_of(slot)
        except ImageError as error:
            if not self.tolerant:
                raise
            return [_Prepared(slot, None, None, _NOTHING, error.bad_images)]

    def _rows_of(self, slot: int) -> list[_Prepared]:
        """Return the rows of an image, one for each view. It is read once, and decoded only if a row needs it."""
        index = int(self.indices[slot])
        if self.store is None and self.views is None:
            return [_Prepared(slot, None, 0, self._canvas(index, None))]
        content, item = fingerprint(self.images, index)
        rows = self._found(slot, content)
        if all(row.start != 0 for row in rows):
            return rows
        if item is None:  # The file was known, so it was not read. The bytes decoded must be those of the keys.
            known, (content, item) = content, fingerprint(self.images, index, anew=True)
            rows = rows if content == known else self._found(slot, content)
        canvas = self._canvas(index, item)
        if self.views is None:
            return [row._replace(array=canvas) if row.start == 0 else row for row in rows]
        return [
            row._replace(array=augment_canvas(canvas, self.views.augment, self.views.seed_of(content, view)))
            if row.start == 0
            else row
            for view, row in enumerate(rows)
        ]

    def _canvas(self, index: int, item: Any) -> np.ndarray:
        return self.preprocessing.canvas(self.images.decode(index, self.preprocessing.least_side, item))

    def _found(self, slot: int, content: bytes) -> list[_Prepared]:
        if self.views is None:
            return [self._row(slot, content, "")]
        first = slot * self.views.count
        return [
            self._row(first + view, content, f"{self.views.name} {self.views.seed_of(content, view)}")
            for view in range(self.views.count)
        ]

    def _row(self, slot: int, content: bytes, view: str) -> _Prepared:
        """Return the row if it is stored, otherwise the deepest stored map before it, otherwise a start from pixels."""
        if self.store is None:
            return _Prepared(slot, None, 0, _NOTHING)
        key = row_key(self.origin, content, view)
        row = None
        for source in self.sources:
            origin, columns = source
            row = self.store.get(row_key(origin, content, view))
            if row is not None:
                row = row if columns is None else row[columns]
                if source is not self.sources[0]:  # the next row is likely in the same place, so look there first
                    self.sources = [source, *(other for other in self.sources if other is not source)]
                break
        self.store.count(found=row is not None)
        if row is not None:
            return _Prepared(slot, key, None, row)
        for start, origin in self.maps:
            stored = self.store.get(row_key(origin, content, view))
            if stored is not None:
                return _Prepared(slot, key, start, stored)
        return _Prepared(slot, key, 0, _NOTHING)


def _wider(outputs: Outputs, backbone: Backbone, exact: bool) -> Iterator[tuple[Outputs, np.ndarray]]:
    """Yield outputs whose rows hold the pooled features in question, and the columns where these are.

    In bfloat16, means beside deviations are computed in float32, and means alone are not.
    """
    poolings = [(outputs.pooling, 1)] + ([("avgstd", 2)] if outputs.pooling == "avg" and exact else [])
    for pooling, parts in poolings:
        every = Outputs(tuple(range(1, len(backbone.stages) + 1)), pooling)
        if every == outputs:
            continue
        counts = every.feature_counts(backbone)
        starts = np.cumsum([0, *counts])
        columns = [np.arange(starts[cut - 1], starts[cut - 1] + counts[cut - 1] // parts) for cut in outputs.cuts]
        yield every, np.concatenate(columns)


_NOTHING = np.empty(0)


class _Rows:
    """The result array, allocated when the first row shows the shape."""

    def __init__(self, n: int, spill: bool) -> None:
        self.n, self.spill = n, spill
        self.array: np.ndarray | None = None

    def place(self, slot: int, row: np.ndarray) -> None:
        if self.array is None:
            shape = (self.n, *row.shape)
            if self.spill and self.n * row.nbytes > SPILL_BYTES:
                self.array = _on_disk(shape, row.dtype)
            else:
                self.array = np.empty(shape, dtype=row.dtype)
        self.array[slot] = row

    def values(self) -> np.ndarray:
        assert self.array is not None  # `as_images` refuses empty input
        return self.array


def _on_disk(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array in a temporary file whose disk space is reserved beforehand.

    If the space were taken only when rows are written, a full disk would kill the process without an error.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    with tempfile.TemporaryFile(prefix="sktransfer-") as file:  # the memory map stays valid after the file is closed
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            else:
                for _ in range(0, n_bytes, _FILL):
                    file.write(bytes(_FILL))
                file.flush()
        except OSError as error:
            raise OSError(
                error.errno,
                f"The activations of {shape[0]} images need {n_bytes / 1e9:.1f} GB in {tempfile.gettempdir()!r}, which "
                f"has no room for them ({error.strerror}). Set TMPDIR to a folder on a larger disk, or freeze more "
                "stages, or pass a smaller image_size",
            ) from error
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def _own_place(n: int) -> int:
    """Return a position below n that differs between processes; consecutive process ids give distant positions."""
    golden_ratio = 0.6180339887
    return int(n * (os.getpid() * golden_ratio % 1))

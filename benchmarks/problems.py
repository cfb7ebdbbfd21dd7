"""The images of the benchmarks, and the classification problems: images, labels, training and test images."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score
from sklearn.model_selection import train_test_split

from sktransfer import set_cache_limits
from sktransfer.datasets import load_elpv, load_fashion_mnist, load_image_folder, make_wallpaper_groups

DATA = Path(__file__).parents[2] / "shared" / "data"
CLOTHING = DATA / "clothing"
BINS = 15  # of the calibration error
FASHION_TEST = 2_000  # of the 10,000 test images, because some strategies are too slow for all of them


@dataclass(frozen=True)
class Problem:
    """Images and labels to train on and to test on, the augmentation that suits them, and how to shrink estimators."""

    X_train: np.ndarray
    y_train: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    augment: str
    params: dict[str, Any] = field(default_factory=dict)  # of all estimators
    max_epochs: int | str = "auto"

    def scores(self, probabilities: np.ndarray) -> dict[str, float]:
        """Return accuracy, log loss and calibration error on the test images, and F1 and AUC of two classes."""
        classes = np.unique(self.y_train)
        predicted, positions = classes[probabilities.argmax(axis=1)], np.searchsorted(classes, self.y_test)
        scores = {"accuracy": accuracy_score(self.y_test, predicted)}
        scores |= {each.__name__: each(probabilities, positions) for each in (log_loss, calibration_error)}
        if len(classes) == 2:
            scores["f1"] = f1_score(self.y_test, predicted)
            scores["auc"] = roc_auc_score(self.y_test, probabilities[:, 1])
        return scores


def log_loss(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Return the mean of -log(probability of the true class); `y` holds positions of classes."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(y)), y], 1e-12)).mean())


def calibration_error(probabilities: np.ndarray, y: np.ndarray) -> float:
    """Return the expected calibration error over 15 bins of equal width (Guo et al., ICML 2017)."""
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == y
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    gaps = np.bincount(bins, right - sure, BINS)
    return float(np.abs(gaps).sum() / len(y))


def load(name: str, seed: int) -> Problem:
    """Return the problem of that name: ``elpv``, or with fewer training images ``elpv-500``, and so on.

    Each seed splits, samples or generates anew. ``tiny`` serves to try a script: 40 images, a small network, one epoch.
    """
    kind, *rest = name.split("-")
    kinds = {"elpv": _elpv, "clothing": _clothing, "fashion": _fashion, "wallpaper": _wallpaper, "tiny": _tiny}
    kinds |= {"groceries": _groceries, "signdigits": _signdigits, "digits": _digits}
    return kinds[kind](*rest, seed=seed)


def _elpv(n: str = "1968", *, seed: int) -> Problem:
    """75/25, stratified over label × module type (8 strata)."""
    cells = load_elpv()
    strata = np.array([f"{p:.2f} {kind}" for p, kind in zip(cells.probability, cells.module_type, strict=True)])
    train, test = train_test_split(np.arange(len(strata)), test_size=0.25, stratify=strata, random_state=seed)
    train = _fewer(train, int(n), cells.target, seed)
    return Problem(*_parts(cells.data, cells.target, train, test), "any_orientation")


def _clothing(n: str = "900", *, seed: int) -> Problem:
    """Take n of 900 of the 1,272 photos, stratified; the rest are the test images."""
    folders = [load_image_folder(CLOTHING / part) for part in ("train", "test")]
    X, y = (np.concatenate([folder[key] for folder in folders]) for key in ("data", "target"))
    return _split(X, y, 900, int(n), seed, "photo")


def _groceries(n: str = "799", *, seed: int) -> Problem:
    """Take n of the 799 training photos, stratified. The 500 test photos are from other shops and days."""
    train, test = (load_image_folder(DATA / "groceries" / part) for part in ("train", "test"))
    rows = _fewer(np.arange(len(train.target)), int(n), train.target, seed)
    return Problem(train.data[rows], train.target[rows], test.data, test.target, "photo")


def _signdigits(n: str = "1462", *, seed: int) -> Problem:
    """Take n of 1,462 of the 2,062 photos of hands, stratified; the rest are the test images."""
    hands = load_image_folder(DATA / "signdigits")
    return _split(hands.data, hands.target, 1462, int(n), seed, "photo")


def _digits(n: str = "1197", *, seed: int) -> Problem:
    """Take n of 1,197 of scikit-learn's 1,797 digits, stratified; the rest are the test images."""
    digits = load_digits()
    return _split(grey(digits.images), digits.target, 1197, int(n), seed, "photo")


def _split(X: np.ndarray, y: np.ndarray, n_of_all: int, n: int, seed: int, augment: str) -> Problem:
    train, test = train_test_split(np.arange(len(y)), train_size=n_of_all, stratify=y, random_state=seed)
    return Problem(*_parts(X, y, _fewer(train, n, y, seed), test), augment)


def _fashion(n: str, part: str = "some", *, seed: int) -> Problem:
    """Take n of the 60,000 training images, stratified; some of the test images, or all of them."""
    train, test = load_fashion_mnist(), load_fashion_mnist(subset="test")
    rows = _fewer(np.arange(len(train.target)), int(n), train.target, seed)
    seen = slice(None if part == "all" else FASHION_TEST)
    return Problem(train.data[rows], train.target[rows], test.data[seen], test.target[seen], "photo")


def _wallpaper(lattice: str, n: str, *, seed: int) -> Problem:
    """Draw n training images and 60 test images of each group."""
    train = make_wallpaper_groups(int(n), lattice=lattice, random_state=seed)
    test = make_wallpaper_groups(60, lattice=lattice, random_state=10_000 + seed)
    return Problem(train.data, train.target, test.data, test.target, "any_orientation")


def _tiny(*, seed: int) -> Problem:
    """Two of scikit-learn's digits."""
    digits = load_digits(n_class=2)
    train, test = train_test_split(np.arange(40), train_size=24, stratify=digits.target[:40], random_state=seed)
    params = {"backbone": "timm/test_efficientnet", "weights": None, "image_size": 32}
    return Problem(*_parts(grey(digits.images), digits.target, train, test), "photo", params, max_epochs=1)


def grey(digits: np.ndarray) -> np.ndarray:
    """Return scikit-learn's digits as 8-bit images."""
    return np.rint(digits * 255 / 16).astype(np.uint8)


def _fewer(rows: np.ndarray, n: int, y: np.ndarray, seed: int) -> np.ndarray:
    if n >= len(rows):
        return rows
    return train_test_split(rows, train_size=n, stratify=y[rows], random_state=seed)[0]


def _parts(X: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, ...]:
    return X[train], y[train], X[test], y[test]


def solar_cells(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return paths and labels of n solar cells, stratified."""
    cells = load_elpv()
    rows = _fewer(np.arange(len(cells.data)), n, cells.target, seed=0)
    return cells.data[rows], cells.target[rows]


def photos(n: int, folder: Path) -> list[str]:
    """Return n paths of photos of about 400 × 533 pixels: of clothes, or if they are missing written to the folder."""
    if CLOTHING.is_dir():
        return sorted(str(path) for path in CLOTHING.glob("train/*/*.jpg"))[::2][:n]
    print(f"  No folder {CLOTHING}: photos are generated.")
    flower = Image.fromarray(load_sample_image("flower.jpg"))
    return [_saved(flower.rotate(i).resize((400, 533)), folder / f"{i:04}.jpg", 60) for i in range(n)]


def large_photos(n: int, folder: Path) -> list[str]:
    """Write n JPEGs of 12 megapixels and return their paths."""
    china, bicubic = Image.fromarray(load_sample_image("china.jpg")), Image.Resampling.BICUBIC
    return [_saved(china.rotate(i % 5).resize((4000, 3000), bicubic), folder / f"{i:04}.jpg", 90) for i in range(n)]


def _saved(image: Image.Image, path: Path, quality: int) -> str:
    image.save(path, quality=quality)
    return str(path)


def forget_rows() -> None:
    """Drop the stored activations, but keep the networks and engines, which `sktransfer.clear_cache` drops too."""
    set_cache_limits(memory_mb=0)
    set_cache_limits(memory_mb=512)

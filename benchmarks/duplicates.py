"""Does `find_duplicates` find planted copies, and no others, and how does its time grow? imagehash's phash beside it.

    python benchmarks/duplicates.py --only kind=clothing kind=elpv    # needs: pip install imagehash

Each image gets one copy: written as a JPEG of quality 50, resized by a factor between 0.5 and 2 with one of three
filters, or brightened by a factor between 1.1 and 1.4. No image was seen when the constants of `find_duplicates` were
chosen: the photos of ELPV and of clothes that were seen are left out, wallpaper patterns are drawn with another seed,
Fashion-MNIST's are from its test images. Windows of scikit-learn's two sample photos, of which each shares half with
its neighbours, and scikit-learn's digits (8 pixels) are kinds that no constant was chosen for.
"""

import io
import time
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from _cells import Benchmark, Cell, defaults_of, table
from problems import CLOTHING, grey
from sktransfer import find_duplicates
from sktransfer._images import _duplicates
from sktransfer._images._collection import as_images
from sktransfer.datasets import load_elpv, load_fashion_mnist, load_image_folder, make_wallpaper_groups

FILTERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
HASH_DISTANCES = (0, 4, 8)
TUNED_ON = {"clothing": 272, "elpv": 600}  # images, the first in the order of this seed:
TUNED_SEED = 2024


def jpeg(image: np.ndarray, rng: np.random.Generator) -> bytes:
    """Write with quality 50."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=50)
    return file.getvalue()


def resized(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resize by half to double."""
    factor, (height, width) = 2 ** rng.uniform(-1, 1), image.shape[:2]
    size = max(1, round(factor * width)), max(1, round(factor * height))
    return np.asarray(Image.fromarray(image).resize(size, FILTERS[rng.integers(len(FILTERS))]))


def brightened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brighten, and cut off at white."""
    return np.asarray(ImageEnhance.Brightness(Image.fromarray(image)).enhance(rng.uniform(1.1, 1.4)))


SORTS: dict[str, Callable] = {"JPEG 50": jpeg, "resized": resized, "brightened": brightened}


def unseen(name: str, X: np.ndarray) -> np.ndarray:
    """Leave out the images that the constants were chosen on."""
    return X[np.random.default_rng(TUNED_SEED).permutation(len(X))[TUNED_ON[name] :]]


def windows() -> list[np.ndarray]:
    """Cut windows of 96 pixels out of two photos, every 48 pixels; much of them is sky, wall or out of focus."""
    return [
        photo[top : top + 96, left : left + 96]
        for photo in load_sample_images().images
        for top, left in product(range(0, photo.shape[0] - 95, 48), range(0, photo.shape[1] - 95, 48))
    ]


KINDS: dict[str, Callable] = {
    "clothing": lambda: unseen(
        "clothing", np.concatenate([load_image_folder(CLOTHING / part).data for part in ("train", "test")])
    ),
    "elpv": lambda: unseen("elpv", load_elpv().data),
    "wallpaper": lambda: make_wallpaper_groups(118, random_state=101).data,
    "wallpaper, colour": lambda: make_wallpaper_groups(118, color=True, random_state=102).data,
    "fashion": lambda: load_fashion_mnist(subset="test").data,
    "windows": windows,
    "digits": lambda: grey(load_digits().images),
}


def planted(kind: str, n: int, seed: int) -> tuple[list, np.ndarray]:
    """Return at most n images, one copy of each behind them, and the sort of each copy."""
    rng = np.random.default_rng(seed)
    X = KINDS[kind]()
    originals = [X[i] for i in rng.permutation(len(X))[:n]]
    decoded, sorts = as_images(originals), np.arange(len(originals)) % len(SORTS)
    functions = list(SORTS.values())
    return originals + [functions[sorts[i]](decoded[i], rng) for i in range(len(originals))], sorts


def scores(left: np.ndarray, right: np.ndarray, sorts: np.ndarray) -> dict:
    """Return the recall of each sort of copy, and the false ones among the pairs left < right."""
    n = len(sorts)
    true = right == left + n
    found = np.zeros(n, dtype=bool)
    found[left[true]] = True
    originals = np.unique(np.sort(np.column_stack([left, right])[~true] % n, axis=1), axis=0)
    return {
        "recall": {name: float(found[sorts == i].mean()) for i, name in enumerate(SORTS)},
        "recall_of_all": float(found.mean()),
        "pairs": len(left),
        "false_pairs": int((~true).sum()),
        "false_of_found": float((~true).mean()) if len(left) else 0.0,
        "false_of_all_pairs": float((~true).sum() / (n * (2 * n - 1))),
        "false_pairs_of_originals": originals[:200].tolist(),
    }


def plan(tiny: bool) -> list[Cell]:
    """Return both methods on each kind, then the times of `find_duplicates`."""
    kinds, n, sizes = (["windows"], 30, [50]) if tiny else (KINDS, 2_000, [1_000, 2_000, 4_000, 8_000, 16_000])
    found = [{"kind": kind, "method": method, "n": n, "seed": 77} for kind in kinds for method in METHODS]
    images = "windows" if tiny else "fashion"
    return found + [{"time of": images, "n": size} for size in sizes]


def measure(n: int, **settings: Any) -> Cell:
    """Search for planted copies, or note the time of each part."""
    if "time of" in settings:
        return timed(settings["time of"], n)
    X, sorts = planted(settings["kind"], n, settings["seed"])
    return {"images": len(sorts), "scores": METHODS[settings["method"]](X, sorts)}


def by_find_duplicates(X: list, sorts: np.ndarray) -> Cell:
    """Score the pairs within its groups."""
    start = time.perf_counter()
    groups = find_duplicates(X)
    took = time.perf_counter() - start
    left, right = np.nonzero(np.triu(groups[:, None] == groups, 1))
    extra = {"largest_group": int(np.bincount(groups).max()), "seconds": took}
    return {"find_duplicates": scores(left, right, sorts) | extra}


def by_phash(X: list, sorts: np.ndarray) -> Cell:
    """Score the pairs whose hashes differ in a few bits at most."""
    import imagehash

    start = time.perf_counter()
    images = as_images(X)
    hashes = np.stack([imagehash.phash(Image.fromarray(images[i])).hash.ravel() for i in range(len(X))])
    bits = 2.0 * hashes.astype(np.float32) - 1
    distance = (bits.shape[1] - bits @ bits.T) / 2
    took = time.perf_counter() - start
    pairs = {most: np.nonzero(np.triu(distance <= most, 1)) for most in HASH_DISTANCES}
    return {f"phash ≤ {most}": scores(*pairs[most], sorts) | {"seconds": took} for most in HASH_DISTANCES}


METHODS = {"find_duplicates": by_find_duplicates, "phash": by_phash}


def timed(kind: str, n: int) -> Cell:
    """Return the seconds of each part for n images, one processor core."""
    data = load_fashion_mnist().data if kind == "fashion" else KINDS[kind]()
    images, times = as_images(data[-n:]), [time.perf_counter()]
    looks = _duplicates._looks(images, None, 0)
    times.append(time.perf_counter())
    pairs = _duplicates._candidates(looks[0][-1][:, 0])
    times.append(time.perf_counter())
    _duplicates._are_copies(pairs, *looks, 2.0)
    decode, search, compare = np.diff([*times, time.perf_counter()])
    return {"decode": decode, "search": search, "compare": compare, "pairs": len(pairs)}


def report(cells: list[Cell]) -> list[str]:
    columns = {"images": "", "": "", **dict.fromkeys([*SORTS, "all copies"], ".1%"), "false pairs": ""}
    columns |= {"of pairs found": ".2%", "of all pairs": ".1e", "largest group": "", "seconds": ".0f"}
    keys, rows = ["recall_of_all", "false_pairs", "false_of_found", "false_of_all_pairs"], []
    for cell in cells:
        for method, score in cell.get("scores", {}).items():
            figures = [*score["recall"].values(), *(score[key] for key in keys), score.get("largest_group", "")]
            rows.append([f"{cell['images']} {cell['kind']}", method, *figures, score["seconds"]])
    lines = [
        __doc__.split("\n\n")[2].replace("\n", " ").strip() + "\n",
        "False pairs are pairs put together of which neither is the other's planted copy; the data's own repeats are "
        "among them. Pairs of `find_duplicates` are those within its groups.\n",
        *table(columns, rows),
    ]
    times = [cell for cell in cells if "time of" in cell]
    if times:
        columns = {"images": "", "decode": ".1f", "search": ".2f", "compare": ".2f", "pairs compared": ""}
        rows = [[cell[key] for key in ("n", "decode", "search", "compare", "pairs")] for cell in times]
        lines += ["Fashion-MNIST's training images, without copies, seconds:\n", *table(columns, rows)]
    if len(times) > 1:
        parts = {part: np.array([cell[part] for cell in times]) for part in ("decode", "search", "compare")}
        parts["all"] = sum(parts.values())
        sizes = np.log([cell["n"] for cell in times])
        slopes = [f"{part} {np.polyfit(sizes, np.log(took), 1)[0]:.2f}" for part, took in parts.items()]
        lines += [f"Fitted exponents of the number of images: {', '.join(slopes)}."]
    return lines


TITLE, DEFAULTS = "Copies among images", defaults_of(find_duplicates)
BENCHMARK = Benchmark(__file__, __doc__, TITLE, plan, measure, report, defaults=DEFAULTS)

if __name__ == "__main__":
    BENCHMARK.main()

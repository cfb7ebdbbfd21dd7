"""Does `find_duplicates` find planted copies, and no others, and how does its time grow? imagehash's phash beside it.

Each image gets one copy: written as a JPEG of quality 50, resized by a factor between 0.5 and 2 with one of three
filters, or brightened by a factor between 1.1 and 1.4. No image was seen when the constants of `find_duplicates` were
chosen: of ELPV and the clothing photos those are left out that were, wallpaper patterns are drawn with another seed,
Fashion-MNIST's are from its test images. Windows of scikit-learn's two sample photos, of which each shares half with
its neighbours, and scikit-learn's digits (8 pixels) are kinds that no constant was chosen for.

    pip install imagehash
    python benchmarks/duplicates.py [--kind clothing --kind elpv …] [--n 2000] [--sizes 1000 2000 …]

writes benchmarks/results/duplicates.json and, from all that is in it, docs/benchmarks/duplicates.md.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits, load_sample_images

from problems import CLOTHING
from sktransfer import find_duplicates
from sktransfer._images import _duplicates
from sktransfer._images._collection import as_images
from sktransfer.datasets import load_elpv, load_fashion_mnist, load_image_folder, make_wallpaper_groups

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "duplicates.json"
REPORT = HERE.parent / "docs" / "benchmarks" / "duplicates.md"
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


def clothing(rng: np.random.Generator) -> np.ndarray:
    """Paths of photos."""
    return unseen("clothing", np.concatenate([load_image_folder(CLOTHING / part).data for part in ("train", "test")]))


def windows(rng: np.random.Generator) -> list[np.ndarray]:
    """Cut windows of 96 pixels out of two photos, every 48 pixels; much of them is sky, wall or out of focus."""
    return [
        photo[top : top + 96, left : left + 96]
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - 95, 48)
        for left in range(0, photo.shape[1] - 95, 48)
    ]


KINDS: dict[str, Callable] = {
    "clothing": clothing,
    "elpv": lambda rng: unseen("elpv", load_elpv().data),
    "wallpaper": lambda rng: make_wallpaper_groups(118, random_state=101).data,
    "wallpaper, colour": lambda rng: make_wallpaper_groups(118, color=True, random_state=102).data,
    "fashion": lambda rng: load_fashion_mnist(subset="test").data,
    "windows": windows,
    "digits": lambda rng: np.rint(load_digits().images * 255 / 16).astype(np.uint8),
}


def planted(kind: str, n: int, seed: int) -> tuple[list, np.ndarray]:
    """Return at most n images, one copy of each behind them, and the sort of each copy."""
    rng = np.random.default_rng(seed)
    X = KINDS[kind](rng)
    originals = [X[i] for i in rng.permutation(len(X))[:n]]
    decoded, sorts = as_images(originals), np.arange(len(originals)) % len(SORTS)
    functions = list(SORTS.values())
    return originals + [functions[sorts[i]](decoded[i], rng) for i in range(len(originals))], sorts


def scores(left: np.ndarray, right: np.ndarray, sorts: np.ndarray) -> dict:
    """Return the recall of each sort, and the false ones among the pairs left < right."""
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


def measured(kind: str, n: int, seed: int) -> dict:
    """Run both on one kind."""
    X, sorts = planted(kind, n, seed)
    start = time.perf_counter()
    groups = find_duplicates(X)
    seconds = time.perf_counter() - start
    left, right = np.nonzero(np.triu(groups[:, None] == groups, 1))
    result = {
        "images": len(sorts),
        "find_duplicates": scores(left, right, sorts)
        | {"largest_group": int(np.bincount(groups).max()), "seconds": seconds},
    }
    start = time.perf_counter()
    images = as_images(X)
    hashes = np.stack([imagehash.phash(Image.fromarray(images[i])).hash.ravel() for i in range(len(X))])
    bits = 2.0 * hashes.astype(np.float32) - 1
    distance = (bits.shape[1] - bits @ bits.T) / 2
    seconds = time.perf_counter() - start
    for most in HASH_DISTANCES:
        left, right = np.nonzero(np.triu(distance <= most, 1))
        result[f"phash ≤ {most}"] = scores(left, right, sorts) | {"seconds": seconds}
    return result


def timed(n: int) -> dict:
    """Return the seconds of each part for n of Fashion-MNIST's images, one processor core."""
    images = as_images(load_fashion_mnist().data[-n:])
    start = time.perf_counter()
    looks = _duplicates._looks(images, None, 0)
    looked = time.perf_counter()
    pairs = _duplicates._candidates(looks[0][-1][:, 0])
    searched = time.perf_counter()
    _duplicates._are_copies(pairs, *looks, 2.0)
    compared = time.perf_counter()
    return {"decode": looked - start, "search": searched - looked, "compare": compared - searched, "pairs": len(pairs)}


def report(results: dict) -> str:
    """Return the report."""
    lines = [
        "# Copies among images",
        "",
        f"`python benchmarks/duplicates.py`, {results['machine']}. {results['remark']}".strip(),
        "",
        __doc__.split("\n\n")[1].replace("\n", " "),
        "",
        "False pairs are pairs put together of which neither is the other's planted copy; the data's own repeats are "
        "among them. Pairs of `find_duplicates` are those within its groups.",
        "",
        f"| images | | {' | '.join(SORTS)} | all copies | false pairs | of pairs found | of all pairs | largest group "
        "| seconds |",
        "|---|---|" + "---|" * (len(SORTS) + 6),
    ]
    for kind, of_kind in results["kinds"].items():
        for method, score in of_kind.items():
            if method == "images":
                continue
            recall = " | ".join(f"{100 * value:.1f} %" for value in score["recall"].values())
            lines.append(
                f"| {of_kind['images']} {kind} | {method} | {recall} | {100 * score['recall_of_all']:.1f} % | "
                f"{score['false_pairs']} | {100 * score['false_of_found']:.2f} % | "
                f"{score['false_of_all_pairs']:.1e} | {score.get('largest_group', '')} | {score['seconds']:.0f} |"
            )
    if results["times"]:
        sizes = np.array([int(n) for n in results["times"]])
        lines += ["", "Fashion-MNIST's training images, without copies, seconds:", ""]
        lines += ["| images | decode | search | compare | pairs compared |", "|---|---|---|---|---|"]
        for n, row in results["times"].items():
            lines.append(f"| {n} | {row['decode']:.1f} | {row['search']:.2f} | {row['compare']:.2f} | {row['pairs']} |")
        if len(sizes) > 1:
            parts = {part: [row[part] for row in results["times"].values()] for part in ("decode", "search", "compare")}
            parts["all"] = np.sum(list(parts.values()), axis=0)
            slopes = {part: np.polyfit(np.log(sizes), np.log(seconds), 1)[0] for part, seconds in parts.items()}
            fitted = ", ".join(f"{part} {slope:.2f}" for part, slope in slopes.items())
            lines += ["", f"Fitted exponents of the number of images: {fitted}."]
    return "\n".join(lines) + "\n"


def processor() -> str:
    """Name the machine."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def save(results: dict) -> None:
    """Write the figures and the report."""
    RESULTS.write_text(json.dumps(results, ensure_ascii=False) + "\n")
    REPORT.write_text(report(results))


def main() -> None:
    """Measure and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="all of them by default")
    parser.add_argument("--n", type=int, default=2_000, help="images of a kind, where it has so many")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--sizes", type=int, nargs="*", default=[1_000, 2_000, 4_000, 8_000, 16_000])
    parser.add_argument("--remark", default="", help="for the report: what else the machine was doing, for instance")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"kinds": {}, "times": {}}
    results |= {"machine": processor(), "remark": options.remark or results.get("remark", "")}
    for n in options.sizes:
        results["times"][str(n)] = timed(n)
        print(n, results["times"][str(n)], flush=True)
    for kind in KINDS if options.kind is None else options.kind:
        results["kinds"][kind] = measured(kind, options.n, options.seed)
        print(kind, json.dumps(results["kinds"][kind], indent=1)[:4_000], flush=True)
        save(results)
    save(results)


if __name__ == "__main__":
    main()

"""Is a pass over images slower than it was at an earlier commit? Cold, and with all rows stored.

    python benchmarks/passes.py d65d592               # 12 pairs of processes, one of each version in turn
    python benchmarks/passes.py d65d592 --pairs 20

Each process builds its engine, then times a cold pass over ELPV cells, warm passes from memory, and warm passes with a
folder. The ratio is today's time over the earlier one; its median over the pairs does not depend on the machine's pace.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
N_PHOTOS = 200


def measure() -> dict[str, float]:
    """Return the seconds of each kind of pass, of the package that this process imports."""
    from sktransfer import PretrainedCNNFeatures, set_cache_limits
    from sktransfer.datasets import load_elpv

    photos = list(load_elpv().data[: N_PHOTOS + 32])
    photos, others = photos[:N_PHOTOS], photos[N_PHOTOS:]

    def timed(model, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            model.transform(photos)
        return (time.perf_counter() - start) / repeats

    with tempfile.TemporaryDirectory() as folder:
        model = PretrainedCNNFeatures().fit(photos)
        model.transform(others)
        model.transform(others[:8])  # batches of another size
        cold = timed(model, 1)
        model.transform(photos)
        warm = timed(model, 20)
        stored = PretrainedCNNFeatures(memory=folder).fit(photos)
        set_cache_limits(memory_mb=0)
        set_cache_limits(memory_mb=512)
        stored_cold = timed(stored, 1)
        return {
            "cold pass": cold,
            "cold pass with a folder": stored_cold,
            "warm pass": warm,
            "warm pass with a folder": timed(stored, 20),
        }


def main() -> None:
    """Run both versions in turn, and print the median ratio of each kind of pass."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commit", nargs="?", help="the earlier version")
    parser.add_argument("--pairs", type=int, default=12)
    arguments = parser.parse_args()
    if arguments.commit is None:
        print(json.dumps(measure()))
        return
    with tempfile.TemporaryDirectory() as folder:
        earlier = Path(folder) / "earlier"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", earlier, arguments.commit], cwd=ROOT, check=True)
        try:
            ratios: dict[str, list[float]] = {}
            for pair in range(arguments.pairs):
                found = {}
                for tree in (ROOT, earlier) if pair % 2 else (earlier, ROOT):
                    environment = {**os.environ, "PYTHONPATH": str(tree)}
                    run = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, check=True)
                    found[tree] = json.loads(run.stdout)
                for kind, seconds in found[ROOT].items():
                    ratios.setdefault(kind, []).append(seconds / found[earlier][kind])
                print(pair, {kind: round(values[-1], 3) for kind, values in ratios.items()}, flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", earlier], cwd=ROOT, check=True)
    for kind, values in ratios.items():
        print(f"{kind}: {statistics.median(values):.3f} of its time at {arguments.commit}, {len(values)} pairs")


if __name__ == "__main__":
    main()

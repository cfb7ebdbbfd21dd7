"""Is a pass over images slower than it was at an earlier commit? Cold, and with all rows stored.

    EARLIER=7136f80 python benchmarks/passes.py    # compare with another commit

A cell is two pairs of processes, one of each version, which run in turn. Each process builds its engine, then times a
cold pass over ELPV cells, warm passes from memory, and warm passes with a folder. The ratio is today's time over the
earlier one; its median over the pairs does not depend on the machine's pace.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from _cells import ROOT, Benchmark, Cell, commit, in_turn, median_ratio, seconds, table

EARLIER = os.environ.get("EARLIER", "d65d592")


def plan(tiny: bool) -> list[Cell]:
    shared = {"earlier": EARLIER, "today": commit(), "photos": 4 if tiny else 200}
    return [{**shared, "cell": cell} for cell in range(1 if tiny else 6)]


def measure(earlier: str, today: str, cell: int, photos: int) -> Cell:
    """Run both versions in turn."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, earlier], cwd=ROOT, check=True)
        try:
            pairs = in_turn(partial(in_a_process, ROOT, photos), partial(in_a_process, tree, photos), repeats=2)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    return {kind: [(now[kind], then[kind]) for now, then in pairs] for kind in pairs[0][0]}


def in_a_process(tree: Path, photos: int) -> dict[str, float]:
    """Return the seconds of each kind of pass, of the package in that folder."""
    code = f"import json, passes; print(json.dumps(passes.seconds_of_passes({photos})))"
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parent}"}
    return json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=tree, env=environment))


def seconds_of_passes(n: int) -> dict[str, float]:
    """Return the seconds of each kind of pass, of the package that this process imports."""
    from sktransfer import PretrainedCNNFeatures, set_cache_limits
    from sktransfer.datasets import load_elpv

    photos, others = list(load_elpv().data[:n]), list(load_elpv().data[n : n + 32])

    def warm(model: PretrainedCNNFeatures) -> float:
        return min(seconds(lambda: model.transform(photos)) for _ in range(20))  # what else runs only ever adds

    with tempfile.TemporaryDirectory() as folder:
        model = PretrainedCNNFeatures().fit(photos)
        model.transform(others)
        model.transform(others[:8])  # batches of another size
        found = {"cold pass": seconds(lambda: model.transform(photos))}
        model.transform(photos)
        found["warm pass"] = warm(model)
        stored = PretrainedCNNFeatures(memory=folder).fit(photos)
        set_cache_limits(memory_mb=0)
        set_cache_limits(memory_mb=512)
        found["cold pass with a folder"] = seconds(lambda: stored.transform(photos))
        found["warm pass with a folder"] = warm(stored)
    return found


def report(cells: list[Cell]) -> list[str]:
    kinds = ("cold pass", "cold pass with a folder", "warm pass", "warm pass with a folder")
    pairs = {kind: [pair for cell in cells for pair in cell[kind]] for kind in kinds}
    rows = [[kind, len(values), median_ratio(values)] for kind, values in pairs.items()]
    return table({"": "", "pairs": "", f"time at {cells[0]['today']} / time at {cells[0]['earlier']}": ".3f"}, rows)


BENCHMARK = Benchmark(__file__, __doc__, "Passes over images, against an earlier version", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()

"""Is a pass over images slower than it was at an earlier commit? Cold, and with all rows stored.

    EARLIER=7136f80 python benchmarks/passes.py    # compare with another commit

A cell runs both versions in a process each. They take turns pass by pass, so that both see the same pace of the
machine, which drifts by half within minutes. The passes are over ELPV cells: cold, or with all rows stored, and with or
without a folder. The ratio is today's time over the earlier one. Its median over the pairs counts.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from _cells import ROOT, Benchmark, Cell, commit, in_turn, median_ratio, seconds, table

EARLIER = os.environ.get("EARLIER", "d65d592")
KINDS = ("cold pass", "cold pass with a folder", "warm pass", "warm pass with a folder")


def plan(tiny: bool) -> list[Cell]:
    shared = {"earlier": EARLIER, "today": commit(), "photos": 4 if tiny else 100, "pairs": 1 if tiny else 10}
    return [{**shared, "cell": cell} for cell in range(1 if tiny else 3)]


def measure(earlier: str, today: str, photos: int, pairs: int, cell: int) -> Cell:
    """Let both versions take turns."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "earlier"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", tree, earlier], cwd=ROOT, check=True)
        try:
            with in_a_process(ROOT, photos) as now, in_a_process(tree, photos) as then:
                return {kind: in_turn(partial(now, kind), partial(then, kind), pairs) for kind in KINDS}
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


@contextmanager
def in_a_process(tree: Path, photos: int) -> Iterator[Callable[[str], float]]:
    """Yield a function from a kind of pass to its seconds, of the package in that folder."""
    code = f"import passes; passes.answer({photos})"
    environment = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{Path(__file__).parent}"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tree, env=environment, **pipes) as process:

        def ask(kind: str) -> float:
            print(kind, file=process.stdin, flush=True)
            return json.loads(process.stdout.readline())

        ask(KINDS[0])  # the process is ready, and does not start up beside a pass of the other one
        yield ask
        process.stdin.close()


def answer(n: int) -> None:
    """Time the kinds of pass that standard input names, and print the seconds of each."""
    from sktransfer import PretrainedCNNFeatures, set_cache_limits
    from sktransfer.datasets import load_elpv

    cells = list(load_elpv().data)
    photos, others = cells[:n], cells[n : n + 32]
    plain = PretrainedCNNFeatures().fit(photos)
    for size in (len(others), n % len(others)):  # builds the engines for whole batches and for the last one
        plain.transform(others[:size])
    for line in sys.stdin:
        kind = line.strip()
        with tempfile.TemporaryDirectory() as folder:
            model = PretrainedCNNFeatures(memory=folder).fit(photos) if "folder" in kind else plain
            set_cache_limits(memory_mb=0)
            set_cache_limits(memory_mb=512)
            again = partial(model.transform, photos)
            if "warm" in kind:
                again()
            # What else runs only ever adds to a time.
            print(min(seconds(again) for _ in range(50 if "warm" in kind else 1)), flush=True)


def report(cells: list[Cell]) -> list[str]:
    pairs = {kind: [pair for cell in cells for pair in cell[kind]] for kind in KINDS}
    rows = [[kind, len(values), median_ratio(values)] for kind, values in pairs.items()]
    return table({"": "", "pairs": "", f"time at {cells[0]['today']} / time at {cells[0]['earlier']}": ".3f"}, rows)


BENCHMARK = Benchmark(__file__, __doc__, "Passes over images, against an earlier version", plan, measure, report)

if __name__ == "__main__":
    BENCHMARK.main()

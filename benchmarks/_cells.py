"""What all benchmarks share: cells that are kept once they are finished, a report with stamps, and timing.

A cell is one measurement: a dict of settings and a dict of results. Finished cells are kept in
``benchmarks/results/<name>.jsonl``, one JSON object per line, with the machine, the commit, the versions and the
default values that they were measured with. If a cell is measured again, its last line counts.
"""

import argparse
import inspect
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = {"numpy", "openvino", "pillow", "scikit-learn", "skorch", "timm", "torch", "torchvision"}
PACKAGES |= {"autogluon.multimodal", "fastai", "lightly_train"}  # peers, as their metadata spell them
Cell = dict[str, Any]


@dataclass
class Benchmark:
    """One script: which cells it has, how to measure one, and how to report them."""

    script: str  # the file; results and report are named after it
    doc: str
    title: str
    plan: Callable[[bool], list[Cell]]  # the settings of all cells, or of a few small ones for a try
    measure: Callable[..., Cell]  # from settings, as keyword arguments, to results
    report: Callable[[list[Cell]], list[str]]  # from settings and results, in one dict per cell, to lines of Markdown
    note: str = ""
    defaults: Cell | Callable[..., Cell] = field(default_factory=dict)  # what results depend on; may depend on settings

    def __post_init__(self) -> None:
        """Set where results and report are kept, unless `main` is told another folder."""
        self._keep_in(None)

    def _keep_in(self, out: Path | None) -> None:
        self.results_file = (out or ROOT / "benchmarks" / "results") / f"{Path(self.script).stem}.jsonl"
        self.report_file = (out or ROOT / "docs" / "benchmarks") / f"{Path(self.script).stem}.md"

    def main(self, argv: Sequence[str] | None = None) -> None:
        """Measure the cells that are not finished, and write the report."""
        parser = argparse.ArgumentParser(description=self.doc, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--only", nargs="*", default=[], metavar="KEY=VALUE", help="such as problem=elpv seed=0")
        parser.add_argument("--again", action="store_true", help="run finished cells too")
        parser.add_argument("--report", action="store_true", help="run nothing, write the report")
        parser.add_argument("--tiny", action="store_true", help="try everything on a few images, kept elsewhere")
        parser.add_argument("--out", type=Path, help="the folder for results and report")
        parser.add_argument("--remark", default="", help="kept with each cell, such as what else the machine is doing")
        options = parser.parse_args(argv)
        self._keep_in(options.out or (Path(tempfile.mkdtemp()) if options.tiny else None))
        self.results_file.parent.mkdir(parents=True, exist_ok=True)
        plan, keys = self.plan(options.tiny), {each.partition("=")[0] for each in options.only}
        chosen = [cell for cell in plan if all(f"{key}={cell.get(key)}" in options.only for key in keys)]
        if not chosen:
            parser.error(f"no cell has {options.only}. The cells are: {plan}")
        for settings in chosen:
            if not options.report and (options.again or _key(settings) not in self.finished()):
                self._run(settings, options.remark)
        finished = self.finished()
        self._write([finished[_key(each)] for each in plan if _key(each) in finished], len(plan))

    def _run(self, settings: Cell, remark: str) -> None:
        print(f"{', '.join(map(str, settings.values()))} …", flush=True)
        start = time.perf_counter()
        try:
            results = self.measure(**settings)
        except (ModuleNotFoundError, FileNotFoundError) as error:
            if getattr(error, "errno", None):  # a file that the script itself should have written
                raise
            print(f"  LEFT OUT, because something is missing: {error}", flush=True)
            return
        cell = {"settings": settings, "results": results, "seconds": round(time.perf_counter() - start, 1)}
        cell |= {"machine": machine(), "remark": remark, "commit": commit(), "date": str(date.today())}
        versions = {each.name: each.version for each in distributions() if each.name in PACKAGES}
        cell |= {"versions": versions, "defaults": self._defaults_now(settings)}
        with self.results_file.open("a") as file:
            file.write(json.dumps(cell, ensure_ascii=False, default=float) + "\n")
        print(f"  {results}"[:1000], flush=True)

    def finished(self) -> dict[str, Cell]:
        """Return the finished cells by their settings."""
        lines = self.results_file.read_text().splitlines() if self.results_file.exists() else []
        return {_key(cell["settings"]): cell for cell in map(json.loads, lines)}

    def _defaults_now(self, settings: Cell) -> Cell:
        return self.defaults(**settings) if callable(self.defaults) else self.defaults

    def _write(self, cells: list[Cell], n_planned: int) -> None:
        machines = Counter(f"{cell['machine']}, {cell['remark']}".removesuffix(", ") for cell in cells)
        changes = Counter(
            f"`{name}` was {value!r} and is now {now.get(name, 'gone')!r}"
            for cell in cells
            for now in [self._defaults_now(cell["settings"])]
            for name, value in cell["defaults"].items()
            if _owner(name) in map(_owner, now)
            and repr(now.get(name, "gone")) != repr(value)  # nan differs from itself
        )
        gone = Counter(
            owner
            for cell in cells
            for owner in set(map(_owner, cell["defaults"])) - set(map(_owner, self._defaults_now(cell["settings"])))
        )
        dates, commits = sorted(cell["date"] for cell in cells), dict.fromkeys(cell["commit"] for cell in cells)
        lines = [f"# {self.title}\n", f"`python benchmarks/{Path(self.script).name}`. {self.note}".strip(), ""]
        lines += [f"{len(cells)} of {n_planned} cells are measured."]
        if cells:
            lines += [f"Machine (cells): {'; '.join(f'{name} ({n})' for name, n in machines.items())}."]
            lines += [f"Commit: {', '.join(commits)}. Date: {' to '.join(dict.fromkeys([dates[0], dates[-1]]))}.\n"]
        if changes or gone:
            lines += ["**Warning: some results are older than the defaults that they measure.**\n"]
            lines += [f"- {change} (in {n} of {len(cells)} cells)" for change, n in changes.items()]
            lines += [f"- `{owner}` is gone (in {n} of {len(cells)} cells)" for owner, n in gone.items()]
            lines += [""]
        lines += self.report([cell["settings"] | cell["results"] for cell in cells]) if cells else []
        text = "\n".join(lines).rstrip() + "\n"
        self.report_file.write_text(text)
        print(f"{text}\nThis is in {self.report_file}, the results are in {self.results_file}.")


def _owner(default: str) -> str:
    """Return whose default value this is."""
    return default.partition(".")[0]


def _key(settings: Cell) -> str:
    return json.dumps(settings, sort_keys=True)


def machine() -> str:
    """Name the processor, its cores, whether it computes in bfloat16, and the GPU if there is one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    model = fields.get("model name") or platform.processor() or platform.machine()
    has_bfloat16 = {"avx512_bf16", "amx_bf16", "bf16"} & set(fields.get("flags", fields.get("Features", "")).split())
    torch = sys.modules.get("torch")
    gpu = f", {torch.cuda.get_device_name()}" if torch and torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores, {'with' if has_bfloat16 else 'without'} bfloat16{gpu}"


def commit() -> str:
    """Return the commit of this repository, and say if the package differs from it."""
    try:
        found = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True).strip()
        changed = subprocess.check_output(["git", "status", "--porcelain", "--", "sktransfer"], cwd=ROOT)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} with changes" if changed else found


def defaults_of(*things: Any) -> Cell:
    """Return the parameters of estimators and the default values of functions, as JSON has them."""
    found = {}
    for thing in things:
        if hasattr(thing, "get_params"):
            name, values = type(thing).__name__, thing.get_params()
        else:
            name, parameters = thing.__name__, inspect.signature(thing).parameters.values()
            values = {each.name: each.default for each in parameters if each.default is not each.empty}
        found |= {f"{name}.{key}": value for key, value in values.items()}
    return json.loads(json.dumps(found, default=lambda value: type(value).__name__))


def seconds(work: Callable[[], object]) -> float:
    """Time one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], repeats: int = 3) -> float:
    """Return the median time of some calls, after one to warm up."""
    work()
    return statistics.median(seconds(work) for _ in range(repeats))


def in_turn(first: Callable[[], Any], second: Callable[[], Any], repeats: int) -> list[tuple[Any, Any]]:
    """Return pairs of what both return; the second one begins every other time."""
    return [(second(), first())[::-1] if repeat % 2 else (first(), second()) for repeat in range(repeats)]


def median_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the median of first over second, which does not depend on the machine's pace."""
    return statistics.median(first / second for first, second in pairs)


def table(columns: dict[str, str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Return the lines of a Markdown table and an empty one, given the columns and the formats of their numbers."""
    formats = columns.values()
    texts = [[f"{v:{'' if isinstance(v, str) else f}}" for v, f in zip(row, formats, strict=True)] for row in rows]
    lines = [f"| {' | '.join(each)} |" for each in (columns, *texts)]
    return [lines[0], "|---" * len(columns) + "|", *lines[1:], ""]


def named_cells(cells: dict[str, tuple[str, Callable[[bool], Cell]]], digits: int) -> tuple[Callable, ...]:
    """Return plan, measure and report of cells that each have a name, a remark and a function of whether it is tiny."""

    def plan(tiny: bool) -> list[Cell]:
        return [{"cell": name, "tiny": True} if tiny else {"cell": name} for name in cells]

    def measure(cell: str, tiny: bool = False) -> Cell:
        return cells[cell][1](tiny)

    def report(finished: list[Cell]) -> list[str]:
        lines = []
        for results in finished:
            name, _ = results.pop("cell"), results.pop("tiny", None)
            values = {key: each if isinstance(each, str) else f"{each:.{digits}g}" for key, each in results.items()}
            lines += [f"**{name}** ({cells[name][0]})", "", *(f"- {key}: {each}" for key, each in values.items()), ""]
        return lines

    return plan, measure, report

"""Each script of benchmarks/ runs on a few images; what they share keeps finished cells and stamps the reports."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.stem for path in FOLDER.glob("*.py") if "BENCHMARK.main()" in path.read_text())
# The cells that need no further process, which would import torch again. Of other scripts all of them.
QUICK = {
    "compute_once": ["grid search of an SVM", "head on a frozen body, 30 epochs"],
    "extraction": ["training, nothing frozen"],
}
LONG = {"elpv", "export", "features", "ranking", "strategies"}  # five seconds and more even so

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),  # of fits to a few images
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning"),
]


@pytest.fixture
def script(monkeypatch):
    """Import a script as its neighbours do."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def results(folder, name):
    path = folder / f"{name}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check_outcome(folder, name, n_cells, output):
    """Each cell is finished, or the script says what is missing."""
    assert n_cells > 0
    assert len(results(folder, name)) + output.count("LEFT OUT") == n_cells
    assert f"python benchmarks/{name}.py" in (folder / f"{name}.md").read_text()


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in SCRIPTS if name != "passes"]
)
def test_a_script_runs_on_a_few_images(name, script, tmp_path, capsys):
    benchmark = script(name).BENCHMARK
    chosen = [f"cell={cell}" for cell in QUICK.get(name, [])]
    benchmark.main(["--tiny", "--out", str(tmp_path), "--only", *chosen])
    check_outcome(tmp_path, name, len(chosen) or len(benchmark.plan(True)), capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["compute_once", "extraction", "passes"])
def test_a_script_that_starts_processes_runs_on_a_few_images(name, script, tmp_path):
    command = [sys.executable, FOLDER / f"{name}.py", "--tiny", "--out", tmp_path]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    check_outcome(tmp_path, name, len(script(name).BENCHMARK.plan(True)), output)


@pytest.mark.parametrize("name", SCRIPTS)
def test_stored_results_belong_to_the_plan(name, script):
    benchmark = script(name).BENCHMARK
    planned = benchmark.plan(False)
    if name != "passes":  # whose plan names today's commit
        assert all(cell["settings"] in planned for cell in results(FOLDER / "results", name))


# --- What the scripts share -----------------------------------------------------------------------------------------


@pytest.fixture
def benchmark(script):
    """Two cells, one of which wants a package that nobody has."""
    cells = script("_cells")

    def measure(number):
        if number == 2:
            raise ModuleNotFoundError("No module named 'nobody_has_it'")
        benchmark.measured.append(number)
        return {"square": number**2}

    benchmark = cells.Benchmark(
        "/somewhere/squares.py",
        "About squares.",
        "Squares",
        lambda tiny: [{"number": 1}, {"number": 2}],
        measure,
        lambda finished: cells.table({"number": "", "square": ".1f"}, [finished[0].values()]),
        defaults={"f.power": 2},
    )
    benchmark.measured = []
    return benchmark


def test_finished_cells_are_kept_and_not_run_again(benchmark, tmp_path):
    for _ in range(2):
        benchmark.main(["--out", str(tmp_path)])
    assert benchmark.measured == [1]
    benchmark.main(["--out", str(tmp_path), "--again"])
    assert benchmark.measured == [1, 1]


def test_a_cell_says_where_and_with_what_it_was_measured(benchmark, tmp_path):
    benchmark.main(["--out", str(tmp_path), "--remark", "a busy machine"])
    (cell,) = results(tmp_path, "squares")
    assert cell["settings"] == {"number": 1}
    assert cell["results"] == {"square": 1}
    assert cell["defaults"] == {"f.power": 2}
    assert cell["versions"].keys() >= {"numpy", "torch"}
    report = (tmp_path / "squares.md").read_text()
    assert "1 of 2 cells are measured." in report
    assert all(cell[key] in report for key in ("machine", "commit", "date", "remark"))
    assert "| 1 | 1.0 |" in report


def test_a_missing_package_is_said(benchmark, tmp_path, capsys):
    benchmark.main(["--out", str(tmp_path)])
    assert "LEFT OUT, because something is missing: No module named 'nobody_has_it'" in capsys.readouterr().out


def test_results_that_are_older_than_a_default_carry_a_warning(benchmark, tmp_path, capsys):
    benchmark.main(["--out", str(tmp_path)])
    assert "Warning" not in capsys.readouterr().out
    benchmark.defaults = {"f.power": 3}
    benchmark.main(["--out", str(tmp_path), "--report"])
    warning = "`f.power` was 2 and is now 3 (in 1 of 1 cells)"
    assert warning in capsys.readouterr().out
    assert warning in (tmp_path / "squares.md").read_text()
    benchmark.defaults = {"g.power": 3}
    benchmark.main(["--out", str(tmp_path), "--report"])
    assert "`f` is gone (in 1 of 1 cells)" in (tmp_path / "squares.md").read_text()


def test_cells_are_chosen_by_their_settings(benchmark, tmp_path, capsys):
    benchmark.main(["--out", str(tmp_path), "--only", "number=2"])
    assert benchmark.measured == []
    with pytest.raises(SystemExit):
        benchmark.main(["--out", str(tmp_path), "--only", "number=3"])
    assert "{'number': 1}" in capsys.readouterr().err


def test_pairs_run_in_turn(script):
    cells, ran = script("_cells"), []
    pairs = cells.in_turn(lambda: ran.append("a") or 6, lambda: ran.append("b") or 3, repeats=3)
    assert "".join(ran) == "abbaab"
    assert cells.median_ratio(pairs) == 2


def test_defaults_are_read_from_estimators_and_functions(script):
    from sklearn.svm import SVC

    found = script("_cells").defaults_of(SVC(C=3), results, json.dumps)
    assert found["SVC.C"] == 3
    assert found["dumps.skipkeys"] is False
    assert not any(name.startswith("results.") for name in found)

"""The report of `show_versions` is complete, and it is printed even where a package is missing or broken."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from sktransfer import _show_versions, show_versions

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


@pytest.fixture
def report(capsys):
    """What is printed, by the name of the line."""

    def printed():
        show_versions()
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
        return dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in lines)

    return printed


def test_every_dependency_of_the_project_is_listed():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    for listed, requirements in (
        (_show_versions.REQUIRED, project["dependencies"]),
        (
            _show_versions.OPTIONAL,
            [*extras["openvino"], *extras["plot"], *extras["cli"], *extras["demo"], *extras["export"]],
        ),
    ):
        names = {re.match(r"[\w-]+", requirement)[0] for requirement in requirements} - {"sktransfer"}
        assert set(listed) == names


def test_report_names_versions_system_and_settings(report):
    lines = report()
    assert lines["torch"] == version("torch") and lines["scikit-learn"] == version("scikit-learn")
    assert lines["python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert lines["devices of torch"].startswith("cpu")
    assert lines["activations in memory"] == "at most 512 MB"
    assert lines["activations in a folder"].startswith("at most 10000 MB")


def test_device_and_engine_are_those_that_auto_takes(report):
    from sktransfer._frozen._engines import resolve_device, resolve_engine

    device = resolve_device("auto")
    lines = report()
    assert lines['device="auto"'] == device.type
    assert lines['engine="auto"'] == resolve_engine("auto", device)


def test_thread_pools_are_named(report, monkeypatch):
    pool = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "num_threads": 4}
    monkeypatch.setattr(_show_versions, "threadpool_info", lambda: [pool])
    assert report()["blas 1"] == "openblas 0.3, 4 threads"


def test_environment_is_part_of_the_report(report, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", "/somewhere")
    monkeypatch.delenv("HF_HOME", raising=False)
    lines = report()
    assert (lines["TORCH_HOME"], lines["HF_HOME"]) == ("/somewhere", "not set")


def test_missing_packages_are_named(report, monkeypatch):
    monkeypatch.setattr(_show_versions, "OPTIONAL", ("no-such-package",))
    assert report()["no-such-package"] == "not installed"


def test_a_torch_that_cannot_be_imported_is_reported(report, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    lines = report()
    assert lines["import of torch"].startswith("ModuleNotFoundError")
    assert "activations in memory" in lines


def test_nothing_heavy_but_torch_is_imported():
    code = """
import sys, sktransfer
sktransfer.show_versions()
heavy = {"captum", "matplotlib", "openvino", "pandas", "sklearn", "skops", "skorch", "timm", "torchvision"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)

"""The lower bounds of pyproject.toml: each has its reason, and `make test-oldest` installs exactly these."""

import io
import re
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
from skops import io as skops_io

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def test_every_lower_bound_has_its_reason_beside_it():
    lines = PROJECT.read_text(encoding="utf-8").splitlines()
    bounds = [number for number, line in enumerate(lines) if re.search(r'"[\w-]+>=\d', line)]
    assert len(bounds) > 20
    assert [lines[n] for n in bounds if "  # " not in lines[n] and "    # " not in lines[n - 1]] == []


def test_the_bounds_become_exact_versions(capsys):
    runpy.run_path(str(Path(__file__).with_name("oldest.py")))
    printed = capsys.readouterr().out.splitlines()
    assert {"torch==2.10", "openvino==2024.4", "pandas==2.2.2"} <= set(printed)
    assert len({line.partition("==")[0] for line in printed}) == len(printed)  # else pip would have two minds
    assert not any(line.startswith("pytest") for line in printed)


def test_a_model_file_cannot_call_functions_of_numpy_random(monkeypatch):
    """Where it could, in skops 0.14, the name of the function was not among the types to be trusted."""
    monkeypatch.setattr(np.random, "seed", lambda *args: pytest.fail("was called"))
    original = zipfile.ZipFile(io.BytesIO(skops_io.dumps({"generator": np.random.default_rng(0)})))
    crafted = io.BytesIO()
    with zipfile.ZipFile(crafted, "w") as archive:
        for name in original.namelist():
            archive.writestr(name, original.read(name).replace(rb"\"PCG64\"", rb"\"seed\""))
    assert b"seed" in zipfile.ZipFile(crafted).read("schema.json")
    assert skops_io.get_untrusted_types(data=crafted.getvalue()) == ["numpy.random.seed"]
    with pytest.raises(Exception, match="Untrusted types found"):
        skops_io.loads(crafted.getvalue())

import importlib.util
import subprocess
import sys

from sktransfer.__main__ import main


def test_version_and_help_do_not_import_torch():
    code = "import sys; from sktransfer.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert 'torch' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "demo" in out


def test_demo_says_what_it_lacks(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "elpv_dataset" else real(name))
    assert main(["demo"]) == 1
    assert "pip install 'sktransfer[demo]'" in capsys.readouterr().err


def test_demo_runs_through(monkeypatch, capsys, tmp_path):
    """The same path on few photos, so that it takes seconds."""
    from sktransfer import _demo

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(_demo, "N_CELLS", 40)
    monkeypatch.setattr(_demo, "IMAGE_SIZE", 32)
    monkeypatch.setattr(_demo, "FREEZE_GRID", [7, "all"])
    assert main(["demo"]) == 0
    out = capsys.readouterr().out
    assert "features + scaling + SVM" in out
    assert "fine-tuned, freeze=all" in out
    assert (tmp_path / "sktransfer-demo.png").stat().st_size > 10_000

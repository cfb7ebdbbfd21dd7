"""Every command on real files, also as a process; with bad input a message and an exit code, never a traceback."""

import contextlib
import csv
import importlib.util
import io
import os
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import sktransfer
from pictures import CHINA, FLOWER, written
from processes import fresh
from sktransfer.__main__ import main

SMALL = ["--image-size", "64", "--quiet"]
COMMANDS = {  # each with what it needs beside the folder
    "recommend": SMALL,
    "compare": ["--cv", "2", *SMALL],
    "train": ["--strategy", "features + linear", "-o", "model", *SMALL],
    "extract": ["-o", "features.npy", *SMALL],
    "check": ["--quiet"],
}
COUNTED = ("recommend", "compare", "train")  # those that want a folder per class


MAIN = "import sys; from sktransfer.__main__ import main; sys.exit(main(sys.argv[1:]))"


def run_process(*arguments, cwd, code=0):
    """Run a command, and return what it wrote to its output and to its errors."""
    done = fresh(MAIN, *arguments, cwd=cwd, check=False)
    assert "Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def run(*arguments, cwd, code=0):
    """Do the same within this process, which need not import torch again."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        returned = main(list(map(str, arguments)))
    assert returned == code, err.getvalue()
    return out.getvalue(), err.getvalue()


def write_crops(photo, folder, n, seed):
    corners = np.random.default_rng(seed).integers(0, np.subtract(photo.shape[:2], 160), (n, 2))
    written([photo[top : top + 160, left : left + 160] for top, left in corners], folder)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    write_crops(CHINA, folder / "china", 10, 0)
    write_crops(FLOWER, folder / "flower", 10, 1)
    return folder


@pytest.fixture
def photos(original, tmp_path):
    """Crops of two real photos, in a folder that a test may spoil."""
    return shutil.copytree(original, tmp_path / "photos")


def test_version_and_help_do_not_import_torch():
    code = "import sys; from sktransfer.__main__ import main; main(['--help']); main(['compare', '--help'])\n"
    code += "assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert all(f"  {name} " in out for name in [*COMMANDS, "predict", "demo", "export", "card"])
    assert "Exit codes" in out and "--keep-copies-together" in out


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sktransfer {sktransfer.__version__}\n"


def test_demo_says_what_it_lacks(monkeypatch, capsys):
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "elpv_dataset" else real(name))
    assert main(["demo"]) == 1
    assert "pip install 'sktransfer[demo]'" in capsys.readouterr().err


# --- what they do -----------------------------------------------------------------------------------------


def test_recommend(photos):
    out, _ = run("recommend", photos, *SMALL, cwd=photos.parent)
    assert out.startswith("Recommended: features + linear")
    assert "20 images in 2 classes" in out and "Expected minutes" in out


def test_compare(photos):
    options = ["--strategy", "features + linear", "--strategy", "dense head", "--cv", "3", "--out", "out", *SMALL]
    out, err = run("compare", photos, *options, cwd=photos.parent)
    assert "features + linear" in out and "dense head" in out and "Report: out/report.html" in out
    table = pd.read_csv(photos.parent / "out" / "scores.csv", index_col="strategy")
    assert list(table.index) == ["features + linear", "dense head"]
    assert table[["fold0", "fold1", "fold2"]].to_numpy().min() >= 0.5
    assert (photos.parent / "out" / "scores.png").read_bytes().startswith(b"\x89PNG")
    page = (photos.parent / "out" / "report.html").read_text()
    assert "20 images in 2 classes, 3 folds" in page and "data:image/png;base64," in page


def test_compare_within_minutes(photos):
    out, _ = run("compare", photos, "--minutes", "0.01", "--cv", "2", *SMALL, cwd=photos.parent)
    assert "features + linear" in out and "fine-tuned, freeze=0" in out and "left out: " in out
    assert "left out: " in (photos.parent / "report" / "report.html").read_text()


def test_compare_keeps_copies_together(photos):
    for quality in (50, 70, 90):
        Image.open(photos / "china" / "0.png").save(photos / "china" / f"{quality}.jpg", quality=quality)
    options = ["--strategy", "features + linear", "--cv", "3", *SMALL]
    # Without the option they are a warning, see below; here any warning is an error.
    assert "near-identical" not in run("compare", photos, *options, "--keep-copies-together", cwd=photos.parent)[1]


@pytest.mark.parametrize("strategy", [[], pytest.param(["--strategy", "features + SVM"], marks=pytest.mark.slow)])
def test_train_and_predict(photos, strategy):
    out, _ = run("train", photos, *strategy, "-o", "model", *SMALL, cwd=photos.parent)
    assert "trained on 20 images in 2 classes: model" in out
    (photos / "china" / "deeper").mkdir()
    shutil.copy(photos / "flower" / "3.png", photos / "china" / "deeper" / "3.PNG")
    out, _ = run_process("predict", "model", photos, cwd=photos.parent)
    run("predict", "model", photos, "-o", "labels.csv", cwd=photos.parent)
    assert (photos.parent / "labels.csv").read_text() == out
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 21
    right = [
        row["label"] == ("flower" if "flower" in row["path"] or "deeper" in row["path"] else "china") for row in rows
    ]
    assert np.mean(right) > 0.9
    if not strategy:  # a linear model has probabilities
        np.testing.assert_allclose([float(row["p(china)"]) + float(row["p(flower)"]) for row in rows], 1, atol=2e-4)


def test_extract(photos):
    run("extract", photos, "-o", "f.npy", *SMALL, cwd=photos.parent)
    run_process(
        "extract", photos, "-o", "f.parquet", "--layer", "stage2", "--memory", "kept", *SMALL, cwd=photos.parent
    )
    features = np.load(photos.parent / "f.npy")
    paths = (photos.parent / "f.txt").read_text().splitlines()
    expected = sktransfer.PretrainedCNNFeatures(image_size=64).fit_transform(paths)
    np.testing.assert_allclose(features, expected, atol=1e-5)
    table = pd.read_parquet(photos.parent / "f.parquet")
    assert list(table["path"]) == paths and table.shape == (20, 25)
    assert sktransfer.cache_info(photos.parent / "kept").entries == 20


def test_export_and_card(photos):
    cwd = photos.parent
    run("train", photos, *COMMANDS["train"], cwd=cwd)
    out, _ = run("export", "model", "model.onnx", "--images", photos / "china", cwd=cwd)
    assert out.startswith("model.onnx: ") and " MB. The largest difference to the model is " in out
    assert (cwd / "model.onnx").stat().st_size > 1_000_000
    out, _ = run("card", "model", "--images", photos, cwd=cwd)
    assert "Accuracy on 20 test images: " in out and "china, flower" in out
    assert run("card", "model", "-o", "model.md", cwd=cwd)[0] == "Model card: model.md\n"
    assert "the accuracy of the model is not known" in (cwd / "model.md").read_text(encoding="utf-8")


def test_check(photos):
    assert run("check", photos, cwd=photos.parent)[0] == "20 images, 0 unreadable, 0 groups of near-identical ones\n"
    (photos / "china" / "0.png").write_bytes(b"no picture")
    Image.open(photos / "flower" / "1.png").save(photos / "flower" / "z.jpg", quality=50)
    out, _ = run_process("check", photos, "--quiet", cwd=photos.parent, code=1)
    assert "unreadable: " in out and "china/0.png: " in out
    assert "near-identical: " in out and "flower/1.png, " in out and "flower/z.jpg" in out
    assert out.endswith("21 images, 1 unreadable, 1 groups of near-identical ones\n")


def test_names_that_are_not_utf8(photos):
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(photos / "china" / "0.png", photos / "china" / name)
    cwd = photos.parent
    run("train", photos, *COMMANDS["train"], cwd=cwd)
    run("predict", "model", photos, "-o", "labels.csv", cwd=cwd)
    assert b"china/caf\xe9.png,china," in (cwd / "labels.csv").read_bytes()
    command = [sys.executable, "-m", "sktransfer", "predict", "model", str(photos)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, check=True)
    assert done.stdout == (cwd / "labels.csv").read_bytes()
    run("extract", photos, "-o", "f.npy", *SMALL, cwd=cwd)
    paths = (cwd / "f.txt").read_text(errors="surrogateescape").splitlines()
    assert len(paths) == len(np.load(cwd / "f.npy")) == 21
    assert str(photos / "china" / name) in paths
    with pytest.warns(UserWarning, match=r"1 file name\(s\) are not UTF-8"):
        sktransfer.__main__.cli(["extract", str(photos), "-o", str(cwd / "f.parquet"), *SMALL], standalone_mode=False)
    assert r"china/caf\xe9.png" in pd.read_parquet(cwd / "f.parquet")["path"].str[-len(r"china/caf\xe9.png") :].tolist()


def test_predict_goes_on_past_broken_files(photos, computed):
    cwd = photos.parent
    run("train", photos, *COMMANDS["train"], cwd=cwd)
    whole = run("predict", "model", photos, cwd=cwd)[0].splitlines()
    (photos / "china" / "4.png").write_bytes(b"no picture")
    (photos / "flower" / "9.png").write_bytes((photos / "flower" / "9.png").read_bytes()[:2000])
    assert run("predict", "model", photos, cwd=cwd, code=1)[0] == ""
    for options in ([], ["-o", "labels.csv"]):
        computed.clear()
        out, err = run("predict", "model", photos, "--on-error", "skip", *options, cwd=cwd, code=1)
        rows = (out or (cwd / "labels.csv").read_text()).splitlines()
        assert [row.split(",")[0] for row in rows] == [row.split(",")[0] for row in whole]
        empty = [row for row in rows if row.endswith(",,,")]
        assert len(empty) == 2 and "china/4.png" in empty[0] and "flower/9.png" in empty[1]
        assert set(rows) - set(empty) < set(whole)
        assert "china/4.png: it is in no format" in err and "flower/9.png: " in err and "truncated" in err
        assert err.endswith("2 of 20 images could not be read\n")
        assert not computed  # nothing that was known is computed again
    for path in photos.rglob("*.png"):
        path.write_bytes(b"no picture")
    out, err = run("predict", "model", photos, "--on-error", "skip", cwd=cwd, code=1)
    assert out.count(",,,\n") == 20 and err.endswith("20 of 20 images could not be read\n")


def test_trouble_of_the_machine_names_the_image(photos, monkeypatch):
    def no_memory(*_, **__):
        raise MemoryError

    monkeypatch.setattr("sktransfer._images._decoding._pillow_levels", no_memory)
    _, err = run("check", photos, "--quiet", cwd=photos.parent, code=1)
    assert err.startswith("Error: Not enough memory. While reading image ") and "photos/china/" in err


def test_progress_bar(photos):
    _, err = run("extract", photos, "-o", "f.npy", "--image-size", "64", cwd=photos.parent)
    assert "20/20" in err


# --- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_folder(command, tmp_path):
    _, err = run_process(command, "nowhere", *COMMANDS[command], cwd=tmp_path, code=1)
    assert "Error: There is no folder 'nowhere'." in err
    assert list(tmp_path.iterdir()) == []


def test_module_is_the_command(tmp_path):
    command = [sys.executable, "-m", "sktransfer", "check", "nowhere"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr == "Error: There is no folder 'nowhere'.\n"


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "check"])  # which lists them
def test_corrupt_image(command, photos):
    (photos / "china" / "4.png").write_bytes((photos / "china" / "4.png").read_bytes()[:2000])
    _, err = run(command, photos, *COMMANDS[command], cwd=photos.parent, code=1)
    assert err.startswith("Error: Cannot read image ") and "china/4.png" in err and "truncated" in err
    assert {path.name for path in photos.parent.iterdir()} == {"photos"}


@pytest.mark.parametrize("command", COUNTED)
def test_empty_class_and_no_classes(command, photos):
    (photos / "nothing").mkdir()
    _, err = run(command, photos, *COMMANDS[command], cwd=photos.parent, code=1)
    assert "No images in" in err and "photos/nothing" in err
    _, err = run(command, photos / "china", *COMMANDS[command], cwd=photos.parent, code=1)
    assert "has no subfolders" in err


@pytest.mark.parametrize("command", ["extract", "check"])
def test_folder_without_images(command, tmp_path):
    (tmp_path / "empty").mkdir()
    _, err = run(command, "empty", *COMMANDS[command], cwd=tmp_path, code=1)
    assert "There are no images in 'empty'" in err


def test_predict_with_bad_input(photos):
    (photos.parent / "model").write_bytes(b"no model")
    cwd = photos.parent
    assert "is no model that sktransfer.save wrote" in run("predict", "model", photos, cwd=cwd, code=1)[1]
    assert "nowhere" in run("predict", "nowhere", photos, cwd=cwd, code=1)[1]
    assert "nowhere" in run("export", "nowhere", "model.onnx", cwd=cwd, code=1)[1]
    assert "nowhere" in run("card", "nowhere", cwd=cwd, code=1)[1]
    run("train", photos, *COMMANDS["train"], cwd=cwd)
    assert "There is no folder 'nowhere'" in run("predict", "model", "nowhere", cwd=cwd, code=1)[1]
    (photos / "china" / "4.png").write_bytes(b"")
    _, err = run("predict", "model", photos, "-o", "labels.csv", cwd=cwd, code=1)
    assert "china/4.png" in err and not (cwd / "labels.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", ".", "-o", "nowhere/model"], "There is no folder"),
        (["train", "photos", "-o", "model", "--strategy", "magic"], "'magic' is none of: features + linear, "),
        (["extract", ".", "-o", "features.txt"], "ends neither in .parquet nor in .npy"),
        (["extract", "."], "Missing option '-o'"),
        (["compare", ".", "--cv", "1"], "is not in the range x>=2"),
        (["recommend", ".", "--augment", "wild"], "is not one of 'none', 'photo'"),
        (["export", "model", "model.onnx", "--to", "tflite"], "is not one of 'onnx', 'openvino', 'html'"),
        (["nonsense"], "No such command 'nonsense'"),
    ],
)
def test_misunderstood_commands(arguments, words, photos):
    _, err = run(*arguments, cwd=photos.parent, code=2)
    assert words in err.replace("\n", " ")


def test_unknown_strategy_or_backbone(photos, capsys):
    assert main(["compare", str(photos), "--strategy", "magic"]) == 1
    assert "some of ['features + linear'" in capsys.readouterr().err
    assert main(["extract", str(photos), "-o", "f.npy", "--backbone", "resnet1"]) == 1
    assert "resnet" in capsys.readouterr().err


def test_ctrl_c(monkeypatch, capsys, photos):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("sktransfer.find_bad_images", interrupted, raising=False)
    assert main(["check", str(photos)]) == 130
    assert capsys.readouterr().err.strip() == "Stopped."


def test_warnings_are_one_line(photos):
    """Outside of pytest, which records them, they go to the errors."""
    for quality in (50, 70, 90):
        Image.open(photos / "china" / "0.png").save(photos / "china" / f"{quality}.jpg", quality=quality)
    options = ["--strategy", "features + linear", "--cv", "3", *SMALL]
    _, err = run_process("compare", photos, *options, cwd=photos.parent)
    assert err.startswith("Warning: ") and "near-identical" in err and err.count("\n") == 1

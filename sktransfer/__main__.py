"""The command line: ``sktransfer`` and ``python -m sktransfer``. Thin: each command is a call of the package.

What is heavy is imported by the command that needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from . import __version__
from ._exceptions import SktransferError

FOLDER = click.Path(path_type=Path)
AUGMENTATIONS = ["none", "photo", "any_orientation", "text"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="sktransfer %(version)s")
def cli() -> None:
    """Pretrained CNNs for your own images.

    DIR is a folder with one subfolder of images per class. Exit codes: 0 all went well, 1 it did not (the message says
    why; `check`: something was found), 2 the command was not understood.
    """


def _options(command: Callable) -> Callable:
    """Add the options that most commands share."""
    for option in (
        click.option("--quiet", is_flag=True, help="No progress bars."),
        click.option("--memory", type=FOLDER, help="Folder to keep activations in, for later runs."),
        click.option("--image-size", type=click.IntRange(1), help="Side in pixels; by default the network's own."),
        click.option("--backbone", default="efficientnet_lite0", show_default=True, help="The pretrained network."),
    ):
        command = option(command)
    return command


def _augment(command: Callable) -> Callable:
    return click.option(
        "--augment", type=click.Choice(AUGMENTATIONS), default="none", show_default=True,
        help="What your images may undergo; see FineTunedCNNClassifier.",
    )(command)  # fmt: skip


@cli.command()
def demo() -> None:
    """Classify real photos of solar cells in three ways (about 5 minutes)."""
    _require("The demo", {"elpv_dataset": "elpv-dataset", "matplotlib": "matplotlib"}, "demo")
    from ._demo import run

    run()


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@_augment
@_options
def recommend(directory: Path, augment: str, quiet: bool, **params: Any) -> None:
    """Advise which strategy suits the images, and why."""
    from . import datasets, recommend_strategy

    photos = datasets.load_image_folder(directory)
    advice = recommend_strategy(photos.data, photos.target, augment=_name(augment), **params)
    click.echo(advice.summary())


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--out", type=FOLDER, default="report", show_default=True, help="Folder for the report.")
@click.option("--strategy", "strategies", multiple=True, help="Compare only these; may be repeated.")
@click.option("--cv", type=click.IntRange(2), default=5, show_default=True, help="Folds.")
@click.option("--minutes", type=float, help="Leave out what is not expected to finish within.")
@click.option("--jobs", type=int, help="Folds at a time; give a --memory too.")
@click.option("--keep-copies-together", is_flag=True, help="Near-identical images never stand on both sides of a fold.")
@_augment
@_options
def compare(
    directory: Path, out: Path, strategies: Sequence[str], cv: int, minutes: float | None, jobs: int | None,
    keep_copies_together: bool, augment: str, quiet: bool, **params: Any,
) -> None:  # fmt: skip
    """Cross-validate strategies, and write a table, a figure and an HTML page."""
    _require("compare", {"matplotlib": "matplotlib", "pandas": "pandas"}, "plot")
    from . import compare_strategies, datasets, find_duplicates, make_strategies
    from ._report import write_report

    photos = datasets.load_image_folder(directory)
    known = make_strategies(augment=_name(augment), **params)
    unknown = [name for name in strategies if name not in known]
    if unknown:
        raise click.BadParameter(f"There is no strategy {unknown[0]!r}. There are: {', '.join(known)}.")
    comparison = compare_strategies(
        photos.data,
        photos.target,
        strategies={name: known[name] for name in known if not strategies or name in strategies},
        cv=cv,
        groups=find_duplicates(photos.data) if keep_copies_together else None,
        time_budget=minutes and 60 * minutes,
        n_jobs=jobs,
        refit=False,
        verbose=not quiet,
    )
    click.echo(comparison.summary())
    click.echo(f"\nReport: {write_report(comparison, out, directory.name, photos, cv)}")


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, required=True, help="File for the model.")
@click.option("--strategy", help="By default what `recommend` advises.")
@_augment
@_options
def train(directory: Path, out: Path, strategy: str | None, augment: str, quiet: bool, **params: Any) -> None:
    """Train a model on all images of DIR, and save it."""
    import numpy as np

    from . import datasets, make_strategies, recommend_strategy, save

    photos = datasets.load_image_folder(directory)
    labels = np.array(photos.target_names)[photos.target]
    if strategy is None:
        advice = recommend_strategy(photos.data, labels, augment=_name(augment), **params)
        strategy, estimator = advice.strategy, advice.estimator
    else:
        known = make_strategies(augment=_name(augment), **params)
        if strategy not in known:
            raise click.BadParameter(f"There is no strategy {strategy!r}. There are: {', '.join(known)}.")
        estimator = known[strategy]
    _show_progress(estimator, not quiet)
    save(estimator.fit(photos.data, labels), out)
    click.echo(f"{strategy}, trained on {len(labels)} images in {len(photos.target_names)} classes: {out}")


@cli.command()
@click.argument("model", type=FOLDER)
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, help="CSV file; by default the standard output.")
def predict(model: Path, directory: Path, out: Path | None) -> None:
    """Classify all images in DIR and its subfolders: path, label, and the probability of each class as CSV."""
    import csv

    from . import load

    estimator, paths = load(model), _images_in(directory)
    header, columns = ["path", "label"], []
    if hasattr(estimator, "predict_proba"):
        columns = estimator.predict_proba(paths)
        labels = estimator.classes_[columns.argmax(axis=1)]
        header += [f"p({name})" for name in estimator.classes_]
    else:
        labels = estimator.predict(paths)
    with click.open_file(out or "-", "w", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for i, (path, label) in enumerate(zip(paths, labels, strict=True)):
            writer.writerow([path, label, *(f"{p:.4f}" for p in (columns[i] if len(columns) else ()))])


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, required=True, help="Table (.parquet) or array (.npy, with a .txt of paths).")
@click.option("--layer", default="penultimate", show_default=True, help="A stage, or 'all'.")
@_options
def extract(directory: Path, out: Path, layer: str, quiet: bool, **params: Any) -> None:
    """Compute the features of all images in DIR and its subfolders."""
    if out.suffix not in (".parquet", ".npy"):
        raise click.BadParameter(f"{str(out)!r} ends neither in .parquet nor in .npy.", param_hint="--out")
    if out.suffix == ".parquet":
        _require("A .parquet file", {"pandas": "pandas", "pyarrow": "pyarrow"}, "cli")
    import numpy as np

    from . import PretrainedCNNFeatures

    paths = _images_in(directory)
    transformer = PretrainedCNNFeatures(layer=layer, verbose=not quiet, **params)
    features = transformer.fit_transform(paths)
    if out.suffix == ".npy":
        np.save(out, features)
        out.with_suffix(".txt").write_text("".join(f"{path}\n" for path in paths), encoding="utf-8")
    else:
        import pandas as pd

        table = pd.DataFrame(features, columns=transformer.get_feature_names_out())
        table.insert(0, "path", paths)
        table.to_parquet(out, index=False)
    click.echo(f"{features.shape[0]} images × {features.shape[1]} features: {out}")


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
def check(directory: Path) -> None:
    """List images that cannot be read, and near-identical ones."""
    import numpy as np

    from . import find_bad_images, find_duplicates

    paths = np.array(_images_in(directory))
    bad = find_bad_images(paths)
    for image in bad:
        click.echo(f"unreadable: {image.path}: {image.reason}")
    readable = np.delete(paths, [image.index for image in bad])
    groups = find_duplicates(readable) if len(readable) else np.array([], dtype=int)
    copies = [readable[groups == label] for label in np.unique(groups) if np.sum(groups == label) > 1]
    for group in copies:
        click.echo(f"near-identical: {', '.join(group)}")
    click.echo(f"{len(paths)} images, {len(bad)} unreadable, {len(copies)} groups of near-identical ones")
    if bad or copies:
        raise SystemExit(1)


def _images_in(directory: Path) -> list[str]:
    from .datasets._image_folder import images_within

    if not directory.is_dir():
        raise FileNotFoundError(f"There is no folder {str(directory)!r}.")
    paths = images_within(directory)
    if not paths:
        raise ValueError(f"There are no images in {str(directory)!r}, by their names (.jpg, .png, .tif, …).")
    return paths


def _name(augment: str) -> str | None:
    return None if augment == "none" else augment


def _show_progress(estimator: Any, shown: bool) -> None:
    """Let the estimator, or the steps of a pipeline that can, show a bar."""
    names = [name for name in estimator.get_params() if name in ("verbose", "features__verbose")]
    estimator.set_params(**{names[-1]: int(shown)})


def _require(what: str, modules: dict[str, str], extra: str) -> None:
    """Stop if a module is not installed."""
    missing = [package for module, package in modules.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise click.ClickException(
            f"{what} needs {' and '.join(missing)}, not installed here. Run: pip install 'sktransfer[{extra}]'"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    try:
        cli.main(arguments, prog_name="sktransfer", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        return 130
    except SystemExit as stop:
        return int(stop.code or 0)
    except (SktransferError, OSError, ValueError) as error:
        click.echo(f"Error: {error}", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command line: ``sktransfer`` and ``python -m sktransfer``. Thin: each command is a call of the package.

Each command imports heavy packages itself, after it has checked the folder, so ``--help`` and typing errors answer at
once.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from . import __version__
from ._exceptions import BadImage, ImageError, SktransferError
from ._optional import require

FOLDER = click.Path(path_type=Path)
AUGMENTATIONS = ["none", "photo", "any_orientation", "text"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="sktransfer %(version)s")
def cli() -> None:
    """Pretrained CNNs for your own images.

    DIR is a folder with one subfolder of images per class; predict, extract, check and export take any folder of
    images.

    Exit codes: 0 means success, 1 means failure with a message (check: something was found), and 2 means that the
    command was not understood.
    """


def _network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose the network and how it runs."""
    for option in (
        click.option("--quiet", is_flag=True, help="Show no progress bars."),
        click.option("--memory", metavar="FOLDER", help="Folder that stores activations for later runs."),
        click.option("--image-size", type=click.IntRange(1), help="Side in pixels; by default the network's own."),
        click.option("--backbone", default="efficientnet_lite0", show_default=True, help="The pretrained network."),
    ):
        command = option(command)
    return command


def _augment_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--augment",
        type=click.Choice(AUGMENTATIONS),
        default="none",
        show_default=True,
        callback=lambda context, parameter, value: None if value == "none" else value,
        help="Random changes that keep the class of your images, for strategies that train the network.",
    )(command)


@cli.command()
def demo() -> None:
    """Classify real photos of solar cells in three ways (about 5 minutes)."""
    require("The demo", "demo", "elpv_dataset", "matplotlib")
    from ._demo import run

    run()


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@_augment_option
@_network_options
def recommend(directory: Path, quiet: bool, **params: Any) -> None:
    """Advise which strategy suits the images, and why."""
    photos = _classes_in(directory)
    from . import recommend_strategy

    advice = recommend_strategy(photos.data, photos.target, verbose=int(not quiet), **params)
    click.echo(advice.summary())


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--out", type=FOLDER, default="report", show_default=True, help="Folder for the report.")
@click.option("--strategy", "names", multiple=True, help="Compare only these; may be given several times.")
@click.option("--cv", type=click.IntRange(2), default=5, show_default=True, help="Number of folds.")
@click.option("--minutes", type=click.FloatRange(0), help="Time limit; slow strategies see fewer images or none.")
@click.option("--jobs", "n_jobs", type=int, help="Number of folds that run at the same time.")
@click.option("--keep-copies-together", is_flag=True, help="Keep near-identical images on one side of each fold.")
@_augment_option
@_network_options
def compare(
    directory: Path,
    out: Path,
    names: Sequence[str],
    minutes: float | None,
    keep_copies_together: bool,
    quiet: bool,
    **params: Any,
) -> None:
    """Cross-validate strategies; write a table, a figure and an HTML page."""
    require("compare", "cli", "matplotlib", "pandas")
    photos = _classes_in(directory)
    from . import compare_strategies, find_duplicates
    from ._report import write_report

    comparison = compare_strategies(
        photos.data,
        photos.target,
        strategies=list(names) or "all",
        groups=find_duplicates(photos.data, n_jobs=-1, verbose=int(not quiet)) if keep_copies_together else None,
        time_budget=None if minutes is None else 60 * minutes,
        refit=False,
        verbose=int(not quiet),
        **params,
    )
    facts = f"{len(photos.data)} images in {len(photos.target_names)} classes, {params['cv']} folds."
    page = write_report(comparison, out, title=f"Strategies for {directory.resolve().name}", facts=facts)
    click.echo(f"{comparison.summary()}\n\nReport: {page}")


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, required=True, help="File for the model.")
@click.option("--strategy", help="The strategy; by default the one that `recommend` advises.")
@_augment_option
@_network_options
def train(directory: Path, out: Path, strategy: str | None, quiet: bool, **params: Any) -> None:
    """Train a model on all images of DIR, and save it."""
    if not out.absolute().parent.is_dir():  # before minutes of training
        raise click.BadParameter(f"There is no folder {str(out.absolute().parent)!r}.", param_hint="--out")
    photos = _classes_in(directory)
    import numpy as np

    from . import make_strategies, recommend_strategy, save

    labels = np.array(photos.target_names)[photos.target]
    params["verbose"] = int(not quiet)
    if strategy is None:
        advice = recommend_strategy(photos.data, labels, **params)
        strategy, estimator = advice.strategy, advice.estimator
    else:
        known = make_strategies(**params)
        if strategy not in known:
            raise click.BadParameter(f"{strategy!r} is none of: {', '.join(known)}.", param_hint="--strategy")
        estimator = known[strategy]
    save(estimator.fit(photos.data, labels), out)
    click.echo(f"{strategy}, trained on {len(labels)} images in {len(photos.target_names)} classes: {out}")


@cli.command()
@click.argument("model", type=FOLDER)
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, help="CSV file; by default the standard output.")
@click.option(
    "--on-error",
    type=click.Choice(["raise", "skip"]),
    default="raise",
    show_default=True,
    help="Stop at images that cannot be read, or give them an empty label, continue, and exit with code 1 at the end.",
)
@click.pass_context
def predict(context: click.Context, model: Path, directory: Path, out: Path | None, on_error: str) -> None:
    """Classify the images in DIR and its subfolders: path, label and the probability of each class, as CSV."""
    paths = _images_in(directory)
    import csv

    from . import load

    estimator = load(model)
    has_probabilities = hasattr(estimator, "predict_proba")
    answers, bad = _answers(estimator.predict_proba if has_probabilities else estimator.predict, paths, on_error)
    header = ["path", "label", *(f"p({name})" for name in estimator.classes_ if has_probabilities)]
    with click.open_file(
        str(out or "-"), "w", encoding="utf-8", errors="surrogateescape", atomic=out is not None
    ) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        for path in paths:
            if path not in answers:
                writer.writerow([path] + [""] * (len(header) - 1))
            elif has_probabilities:
                label = estimator.classes_[answers[path].argmax()]
                writer.writerow([path, label, *(f"{p:.4f}" for p in answers[path])])
            else:
                writer.writerow([path, answers[path]])
    for image in bad:
        click.echo(f"unreadable: {image.path}: {image.reason}", err=True)
    if bad:
        click.echo(f"{len(bad)} of {len(paths)} images could not be read", err=True)
        context.exit(1)


def _answers(ask: Callable[[list[str]], Any], paths: list[str], on_error: str) -> tuple[dict[str, Any], list[BadImage]]:
    """Return a model's prediction for each image that can be read, and the images that cannot be read."""
    readable, bad = list(paths), list[BadImage]()
    while readable:
        try:
            return dict(zip(readable, ask(readable), strict=True)), bad
        except ImageError as error:  # it lists only images without stored activations
            if on_error == "raise" or not error.bad_images:
                raise
            bad += error.bad_images
            unreadable = {image.path for image in error.bad_images}
            readable = [path for path in readable if path not in unreadable]
    return {}, bad


@cli.command()
@click.argument("model", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--to",
    "format",
    type=click.Choice(["onnx", "openvino", "html"]),
    help="The format; by default what OUT ends in: .onnx, .xml (OpenVINO) or .html (a page for the browser).",
)
@click.option("--images", metavar="DIR", type=FOLDER, help="Images on which the file is compared with the model.")
@click.option("--runtime", type=FOLDER, help="For html: onnxruntime-web as .tgz or folder; by default a download.")
def export(model: Path, out: Path, format: str | None, images: Path | None, runtime: Path | None) -> None:
    """Write MODEL to OUT, a file for programs without Python."""
    paths = None if images is None else _images_in(images)
    from . import export, load

    difference = export(load(model), out, format=format, images=paths, runtime=runtime)
    click.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB. The largest difference to the model is {difference:.1g}.")


@cli.command()
@click.argument("model", type=FOLDER)
@click.option("--images", metavar="DIR", type=FOLDER, help="Test images, with one subfolder per class, for the scores.")
@click.option("-o", "--out", type=FOLDER, help="Markdown file; by default the standard output.")
def card(model: Path, images: Path | None, out: Path | None) -> None:
    """Describe MODEL in a model card: classes, accuracy on test images, limits, network, licence of the weights."""
    photos = None if images is None else _classes_in(images)
    import numpy as np

    from . import card, load

    X, y = (None, None) if photos is None else (photos.data, np.array(photos.target_names)[photos.target])
    described = card(load(model), out, X=X, y=y)
    click.echo(described.render().strip() if out is None else f"Model card: {out}")


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("-o", "--out", type=FOLDER, required=True, help="Table (.parquet) or array (.npy, with a .txt of paths).")
@click.option("--layer", default="penultimate", show_default=True, help="A stage, or 'all'.")
@_network_options
def extract(directory: Path, out: Path, layer: str, quiet: bool, **params: Any) -> None:
    """Compute the features of the images in DIR and its subfolders."""
    if out.suffix not in (".parquet", ".npy"):
        raise click.BadParameter(f"{str(out)!r} ends neither in .parquet nor in .npy.", param_hint="--out")
    if out.suffix == ".parquet":
        require("A .parquet file", "cli", "pandas", "pyarrow")
    paths = _images_in(directory)
    import numpy as np

    from . import PretrainedCNNFeatures

    transformer = PretrainedCNNFeatures(layer=layer, verbose=int(not quiet), **params)
    features = transformer.fit_transform(paths)
    if out.suffix == ".npy":
        np.save(out, features)
        names = out.with_suffix(".txt")
        names.write_text("".join(f"{path}\n" for path in paths), encoding="utf-8", errors="surrogateescape")
    else:
        import pandas as pd

        table = pd.DataFrame(features, columns=transformer.get_feature_names_out())
        table.insert(0, "path", _names_in_unicode(paths))
        table.to_parquet(out, index=False)
    click.echo(f"{features.shape[0]} images × {features.shape[1]} features: {out}")


@cli.command()
@click.argument("directory", metavar="DIR", type=FOLDER)
@click.option("--quiet", is_flag=True, help="Show no progress bar.")
@click.pass_context
def check(context: click.Context, directory: Path, quiet: bool) -> None:
    """List images that cannot be read, and near-identical ones, in DIR and its subfolders."""
    found = _images_in(directory)
    import numpy as np

    from . import find_bad_images, find_duplicates

    paths = np.array(found)
    bad = find_bad_images(paths)
    for image in bad:
        click.echo(f"unreadable: {image.path}: {image.reason}")
    readable = np.delete(paths, [image.index for image in bad])
    groups = np.empty(0, dtype=int)
    if len(readable):
        groups = find_duplicates(readable, n_jobs=-1, verbose=int(not quiet))
    copies = [readable[groups == label] for label in np.flatnonzero(np.bincount(groups) > 1)]
    for group in copies:
        click.echo(f"near-identical: {', '.join(group)}")
    click.echo(f"{len(paths)} images, {len(bad)} unreadable, {len(copies)} groups of near-identical ones")
    context.exit(1 if bad or copies else 0)


def _classes_in(directory: Path) -> Any:
    from .datasets import load_image_folder

    return load_image_folder(directory)


def _images_in(directory: Path) -> list[str]:
    from .datasets._image_folder import images_within

    if not directory.is_dir():
        raise FileNotFoundError(f"There is no folder {str(directory)!r}.")
    paths = images_within(directory)
    if not paths:
        raise ValueError(f"There are no images in {str(directory)!r}: no file name ends in .jpg, .png, .tif, ….")
    return paths


def _names_in_unicode(paths: list[str]) -> list[str]:
    """Return the paths with backslashes for bytes that are not UTF-8, which a table cannot hold."""
    names = [os.fsencode(path).decode("utf-8", "backslashreplace") for path in paths]
    n_changed = sum(name != path for name, path in zip(names, paths, strict=True))
    if n_changed:
        warnings.warn(
            f"{n_changed} file name(s) are not UTF-8. The table has backslashes in them, such as caf\\xe9.jpg. With "
            "a .npy file, the list of names keeps them unchanged.",
            stacklevel=2,
        )
    return names


def _warn(message: Warning | str, *_: Any) -> None:
    click.echo(f"Warning: {message}", err=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    with warnings.catch_warnings():
        warnings.showwarning = _warn  # type: ignore[assignment]  # it needs the message alone
        try:
            return int(cli.main(arguments, prog_name="sktransfer", standalone_mode=False) or 0)
        except click.ClickException as error:
            error.show()
            return error.exit_code
        except (click.Abort, KeyboardInterrupt):
            click.echo("Stopped.", err=True)
            return 130
        except (SktransferError, ImportError, OSError, ValueError, MemoryError) as error:
            notes = getattr(error, "__notes__", ())
            click.echo(" ".join(["Error:", str(error) or "Not enough memory.", *notes]), err=True)
            return 1


if __name__ == "__main__":
    sys.exit(main())

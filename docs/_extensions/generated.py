"""Files that are made before the pages are read: the table of capabilities, the commands, and the notebook."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parents[1]
FOLDER = DOCS / "_generated"

Test = Callable[[Any, Any], bool]  # of an estimator and of its tags


def _has(*methods: str) -> Test:
    return lambda estimator, tags: all(hasattr(estimator, method) for method in methods)


def _fit_takes(argument: str) -> Test:
    from sklearn.utils.validation import has_fit_parameter

    return lambda estimator, tags: has_fit_parameter(estimator, argument)


def _parameter(name: str) -> Test:
    return lambda estimator, tags: any(
        key.rpartition("__")[2] == name for part in _parts(estimator) for key in part.get_params()
    )


def _parts(estimator: Any) -> Iterator[Any]:
    """Yield the estimator, and the transformer that it holds."""
    yield estimator
    if hasattr(estimator, "transformer"):
        yield estimator.transformer


def capabilities() -> dict[str, Test]:
    """Return what an estimator may be able to do, each with the test of it."""
    return {
        "classifies": lambda estimator, tags: tags.estimator_type == "classifier",
        "more than two classes": lambda estimator, tags: bool(
            tags.classifier_tags and tags.classifier_tags.multi_class
        ),
        "several labels for one image": lambda estimator, tags: tags.target_tags.multi_output,
        "probabilities (`predict_proba`)": _has("predict_proba"),
        "logits (`decision_function`)": _has("decision_function"),
        "features (`transform`)": _has("transform"),
        "names of the features (`get_feature_names_out`)": _has("get_feature_names_out"),
        "data frames as output (`set_output`)": _has("set_output"),
        "training in parts (`partial_fit`)": _has("partial_fit"),
        "continued training (`warm_start`)": _parameter("warm_start"),
        "`sample_weight` in `fit`": _fit_takes("sample_weight"),
        "`groups` in `fit`": _fit_takes("groups"),
        "`class_weight`": _parameter("class_weight"),
        "augmentation (`augment`)": _parameter("augment"),
        "`early_stopping`": _parameter("early_stopping"),
        "OpenVINO (`engine`)": _parameter("engine"),
        "a GPU (`device`)": _parameter("device"),
        "stored activations (`memory`)": _parameter("memory"),
        "goes on past broken images (`on_error`)": _parameter("on_error"),
        "flat rows as images (`image_shape`)": lambda estimator, tags: tags.input_tags.two_d_array,
        "the same result from the same `random_state`": lambda estimator, tags: not tags.non_deterministic,
    }


def capabilities_table() -> str:
    """Return the table as Markdown: the estimators, what scikit-learn's tags and their methods say of them."""
    from sklearn.utils import get_tags

    from sktransfer import FeatureClassifier, FineTunedCNNClassifier, PretrainedCNNFeatures

    columns = {
        "features": PretrainedCNNFeatures(),
        "linear": FeatureClassifier(),
        "fine-tuned": FineTunedCNNClassifier(),
    }
    estimators = list(columns.values())
    tags = [get_tags(estimator) for estimator in estimators]
    lines = [f"| | {' | '.join(columns)} |", f"|---|{':-:|' * len(columns)}"]
    for capability, has in capabilities().items():
        marks = ["✓" if has(*pair) else "" for pair in zip(estimators, tags, strict=True)]
        lines.append(f"| {capability} | {' | '.join(marks)} |")
    return "\n".join(lines) + "\n"


def command_line() -> str:
    """Return the help of each command as Markdown."""
    from sktransfer.__main__ import cli

    whole = click.Context(cli, info_name="sktransfer", max_content_width=80, **cli.context_settings)
    parts = [f"```text\n{cli.get_help(whole)}\n```\n"]
    for name in cli.list_commands(whole):
        command = cli.get_command(whole, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=whole, max_content_width=80)
        parts.append(f"## `sktransfer {name}`\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def notebook_of(page: str) -> str:
    """Return a page in Markdown as a notebook, without what only the site can show."""
    import jupytext

    text = re.sub(r"^(:{3,})\{.*?^\1\n", "", page, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^.*\{download\}.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{doc\}`([^<`]+?) <[^`]*`", r"\1", text)
    # A notebook computes the outputs itself.
    text = re.sub(r"(```python\n.*?```\n)\n```text\n.*?```\n", r"\1", text, flags=re.DOTALL)
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"  # otherwise random, and each build would differ
    written: str = jupytext.writes(notebook, fmt="ipynb")
    return written


def _write_all(app: Sphinx) -> None:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "capabilities.md").write_text(capabilities_table(), encoding="utf-8")
    (FOLDER / "command_line.md").write_text(command_line(), encoding="utf-8")
    page = (DOCS / "start.md").read_text(encoding="utf-8")
    (FOLDER / "start.ipynb").write_text(notebook_of(page), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the files when a build starts."""
    app.connect("builder-inited", _write_all)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}

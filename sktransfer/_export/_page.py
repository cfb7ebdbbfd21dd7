"""One HTML page with the model and the runtime in it, which classifies photos in the browser."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from html import escape
from importlib.resources import files
from typing import Any

from .._exceptions import ExportError
from ._runtime import LICENCE, VERSION, Runtime

_LIMIT = 400_000_000  # characters; browsers refuse longer texts (V8: 2**29 - 24)
_LISTED = 20  # classes that the first lines of the page name


def page(model: bytes, description: str, title: str, runtime: Runtime) -> str:
    """Return the page.

    `model` is the content of the ONNX file, and `description` the JSON in its metadata. The page may load nothing, and
    runs only the two scripts whose hashes its policy names.
    """
    script, style, template = (_own(name) for name in ("page.js", "page.css", "page.html"))
    policy = (
        f"default-src 'none'; script-src {_hash(runtime.script)} {_hash(script)} 'wasm-unsafe-eval'; "
        f"style-src {_hash(style)}; img-src blob:; connect-src 'none'; base-uri 'none'; form-action 'none'"
    )
    facts = json.loads(description)
    text = template.format(
        policy=escape(policy, quote=False),
        version=facts["versions"]["sktransfer"],
        title=escape(title),
        summary=escape(_summary(facts["classes"])),
        about=_about(facts),
        style=style,
        description=description.replace("<", "\\u003c"),  # so that no text in it can end the script element
        wasm=_packed(runtime.wasm),
        model=_packed(model),
        runtime=runtime.script,
        script=script,
    )
    if len(text) > _LIMIT:
        raise ExportError(
            f"The page would have {len(text) / 1e6:.0f} MB, which is more than browsers open. Export to ONNX instead."
        )
    return text


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _packed(content: bytes) -> str:
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _summary(classes: list[Any]) -> str:
    names = [str(label) for label in classes]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return f"Tells {len(names)} classes of photos apart: {', '.join(names[:_LISTED])}{more}."


def _about(description: dict[str, Any]) -> str:
    facts = [("Classes", ", ".join(map(str, description["classes"])))]
    for each in description["inputs"]:
        facts += [("Network", each["backbone"]), ("Weights", each["weights"])]
        facts += [("Preparation", each["preprocessing"]["in words"])]
    versions = ", ".join(f"{name} {version}" for name, version in description["versions"].items())
    facts += [("Written", f"{description['created']} with {versions}")]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    runtime = f"ONNX Runtime Web {VERSION}, https://onnxruntime.ai, runs the model in this page. Its licence:"
    return f"<dl>{rows}</dl><p>{escape(runtime)}</p><pre>{escape(LICENCE)}</pre>"

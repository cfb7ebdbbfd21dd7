"""ONNX Runtime for the browser: one version of the npm package onnxruntime-web, checked by its SHA-512."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import urllib.request
from pathlib import Path
from typing import NamedTuple

from .._exceptions import ExportError
from .._protocols import StrPath
from .._whole_files import write_whole

VERSION = "1.30.0"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
URL = f"https://registry.npmjs.org/onnxruntime-web/-/{ARCHIVE}"
SHA512_OF_ARCHIVE = (
    "ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"  # the build for one thread and the CPU
SHA512 = {
    SCRIPT: "d4a705f0258065eaad4dcbcb80a3ed38c5c86e459e87ef8b0c24290e14390115"
    "711c02f554d2f9aebd0e23e3314db98d200365744fc0feaf8ee2048a81232359",
    WASM: "1adeded62203219fcf5c484cfce5657aa5875689b490423f86cf1ca1dd1cad77"
    "15f630c6337f41db71ee42794e3a00ce0b7c78939a71220b5d83368bf6ea7730",
}
_SECONDS = 120  # without an answer
_EXPORTS = re.compile(r"export\{([^{}]*)\};?\s*(//# sourceMappingURL=\S*\s*)?$")

LICENCE = """MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated \
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the \
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit \
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the \
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE \
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR \
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR \
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE."""


class Runtime(NamedTuple):
    """The two files of ONNX Runtime that a page needs."""

    script: str  # a module that sets ``globalThis.ort``
    wasm: bytes


def load_runtime(place: StrPath | None) -> Runtime:
    """Return the runtime from an archive or a folder, or from the cache, which is filled from the npm registry.

    Raises
    ------
    ExportError
        If it cannot be downloaded, or if its files are not those of this version. The message says what to do.
    """
    if place is None:
        files = _from_archive(_cached(), "The download")
    elif Path(place).expanduser().is_dir():
        files = _from_folder(Path(place).expanduser())
    else:
        files = _from_archive(Path(place).expanduser().read_bytes(), f"{os.fspath(place)!r}")
    for name, content in files.items():
        if hashlib.sha512(content).hexdigest() != SHA512[name]:
            raise ExportError(f"{name} is not that of onnxruntime-web {VERSION}. {_how_to_get_it()}")
    return Runtime(_as_global(files[SCRIPT].decode()), files[WASM])


def _cached() -> bytes:
    """Return the archive from the cache; download it if it is missing or damaged."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "sktransfer"
    path = folder / ARCHIVE
    if path.is_file():
        kept = path.read_bytes()
        if hashlib.sha512(kept).hexdigest() == SHA512_OF_ARCHIVE:
            return kept
    try:
        with urllib.request.urlopen(URL, timeout=_SECONDS) as answer:
            content: bytes = answer.read()
    except OSError as error:
        raise ExportError(f"Cannot download {URL}: {error}. {_how_to_get_it()}") from error
    if hashlib.sha512(content).hexdigest() != SHA512_OF_ARCHIVE:
        raise ExportError(f"The file at {URL} does not have the expected SHA-512. {_how_to_get_it()}")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(path, content)
    return content


def _how_to_get_it() -> str:
    return (
        f"Run `npm pack onnxruntime-web@{VERSION}` on a machine with a network, or download {URL} with a browser, and "
        f"pass the file: runtime={ARCHIVE!r}."
    )


def _from_archive(content: bytes, what: str) -> dict[str, bytes]:
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
            found = {name: archive.extractfile(f"package/dist/{name}") for name in (SCRIPT, WASM)}
            return {name: file.read() for name, file in found.items() if file is not None}
    except (tarfile.TarError, KeyError, EOFError, OSError) as error:
        raise ExportError(f"{what} is not the package onnxruntime-web: {error}. {_how_to_get_it()}") from error


def _from_folder(folder: Path) -> dict[str, bytes]:
    for dist in (folder / "dist", folder / "package" / "dist", folder):
        if all((dist / name).is_file() for name in (SCRIPT, WASM)):
            return {name: (dist / name).read_bytes() for name in (SCRIPT, WASM)}
    raise ExportError(f"The folder {str(folder)!r} does not hold dist/{SCRIPT} and dist/{WASM}. {_how_to_get_it()}")


def _as_global(script: str) -> str:
    """Let the module set ``globalThis.ort``; another script in the same page cannot import from it."""
    found = _EXPORTS.search(script)
    assert found is not None and "</script" not in script  # true of the pinned file
    names = [export.split(" as ") for export in found[1].split(",")]
    members = ",".join(f"{public}:{private}" for private, public in names)
    return f"{script[: found.start()]}globalThis.ort={{{members}}};"

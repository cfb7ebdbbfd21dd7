"""Files that are either whole or not there, whatever happens to the process that writes them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path


def write_whole(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write a file aside and rename it, so that nobody ever sees half of it.

    With `sync`, wait until the disk has it, so that the file is whole even after a power cut.
    """
    # The name aside is short: with the file's own in it, it could be longer than the file system allows.
    aside = path.with_name(f".sktransfer-{secrets.token_hex(8)}.tmp")
    try:
        with open(aside, "xb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:  # Ctrl-C too
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise

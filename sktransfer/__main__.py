"""The command line: ``python -m sktransfer`` and ``sktransfer``."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence

from . import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code."""
    parser = argparse.ArgumentParser(prog="sktransfer", description="Pretrained CNNs for your own images.")
    parser.add_argument("--version", action="version", version=f"sktransfer {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("demo", help="classify real photos of solar cells in three ways (about 5 minutes)")
    parser.parse_args(arguments)
    return demo()


def demo() -> int:
    """Run the demo, or say what it lacks."""
    missing = [name for name in ("elpv_dataset", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        print(
            f"The demo needs {' and '.join(missing)}, not installed here. Run: pip install 'sktransfer[demo]'",
            file=sys.stderr,
        )
        return 1
    from ._demo import run

    run()
    return 0


if __name__ == "__main__":
    sys.exit(main())

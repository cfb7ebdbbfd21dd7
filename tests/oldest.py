"""Print the lower bounds of pyproject.toml as exact versions: the constraints of ``make test-oldest``.

The tools that build, test and document the package are left out; they are no part of what a user installs.
"""

import tomllib
from pathlib import Path

TOOLS = ("docs", "fuzz", "lint", "test")

project = tomllib.loads(Path(__file__).with_name("..").joinpath("pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
extras = [extra for name, extra in project["optional-dependencies"].items() if name not in TOOLS]
bounds = {requirement for group in [project["dependencies"], *extras] for requirement in group if ">=" in requirement}
print(*sorted(bound.replace(">=", "==") for bound in bounds), sep="\n")

"""The package as it is published: built, installed into a folder that has nothing else, imported.

    python tests/packed.py DIST

`DIST` has the wheel and the sdist that `python -m build` made.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

_PROGRAM = """
import onceward, sys
from onceward.testing import FakeGateway
assert onceward.__file__.startswith(sys.argv[1]), onceward.__file__
once = onceward.Onceward(transport=FakeGateway().transport)
print(once.send("demo/orders", body={"qty": 1}).status, onceward.VERSION)
"""


def run(*arguments: str, folder: Path) -> str:
    """What the interpreter prints in `folder`."""
    done = subprocess.run(
        [sys.executable, "-I", *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout


def main() -> None:
    """Looks at what was built, installs it, and uses it."""
    dist = Path(sys.argv[1]).resolve()
    [wheel], [sdist] = dist.glob("*.whl"), dist.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in ("onceward/py.typed", "onceward/shapes.py", "onceward/adapter.py"):
        assert wanted in names, f"{wanted} is not in {wheel.name}"
    assert any(name.endswith("licenses/LICENSE") for name in names), names
    with tarfile.open(sdist) as packed:
        assert any(name.endswith("/README.md") for name in packed.getnames())
    place = dist / "installed"
    pip = ["-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--upgrade"]
    run(*pip, "--disable-pip-version-check", "--target", str(place), str(wheel), folder=dist)
    program = f"import sys; sys.path.insert(0, sys.argv[1])\n{_PROGRAM}"
    said = run("-c", program, str(place), folder=dist)
    version = wheel.name.split("-")[1]
    assert said == f"201 {version}\n", said
    print(f"packed: {wheel.name}, installed and imported")


main()

"""What `make release-check` looks at beside the tests: versions, changelog, citation, a clean checkout."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def problems(root: Path) -> list[str]:
    """What keeps a checkout from being released, in sentences; an empty list if nothing does."""
    version = tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"]
    found = []
    package = re.search(r'^__version__ = "(.+)"$', (root / "python/cgnrt/__init__.py").read_text(), re.M)
    if not package or package[1] != version:
        found.append(f"python/cgnrt/__init__.py has another version than pyproject.toml's {version}.")
    citation = (root / "CITATION.cff").read_text()
    if f"\nversion: {version}\n" not in citation:
        found.append(f"CITATION.cff has another version than pyproject.toml's {version}.")
    heading = re.search(
        rf"^## \[{re.escape(version)}\] - (\d{{4}}-\d\d-\d\d)$", (root / "CHANGELOG.md").read_text(), re.M
    )
    if not heading:
        found.append(f"CHANGELOG.md has no heading '## [{version}] - YYYY-MM-DD'.")
    elif f"date-released: {heading[1]}" not in citation:
        found.append(f"CITATION.cff has no 'date-released: {heading[1]}', the day in CHANGELOG.md.")
    return found


def main() -> None:
    found = problems(ROOT)
    command = ["git", "status", "--porcelain"]
    if subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout:
        found.append("the checkout has changes that are not committed.")
    sys.exit("\n".join(["release-check:", *found]) if found else None)


if __name__ == "__main__":
    main()

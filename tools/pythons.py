"""The interpreters that wheels are made and tried with, as a user names them: python3.12, or a path."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def find_python(name: str) -> tuple[Path, str]:
    """The path of an interpreter itself, not of a link or script on the PATH that starts it, and its tag as "cp312"."""
    code = "import sys; print(sys.executable); print('cp%d%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([name, "-c", code], capture_output=True, text=True, check=True)
    except OSError as error:
        sys.exit(f"Python {name!r} is missing: {error.strerror}. Name one on the PATH, or give a path.")
    except subprocess.CalledProcessError as error:
        sys.exit(f"Python {name!r} does not run:\n{error.stderr.strip()}")
    path, tag = done.stdout.splitlines()
    return Path(path), tag

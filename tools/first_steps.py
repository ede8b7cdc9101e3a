"""The first steps of a new user, by the cgnrt that is installed for this Python, in an empty folder.

The example plan, the first Python block of README.md, `cgnrt bench`, `cgnrt real` on three drawn photos, and, where its
packages are installed, `cgnrt serve` until it says that it is ready. Anything that fails ends it with an error.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"
COMMAND = [sys.executable, "-c", "import sys; from cgnrt.cli import main; sys.exit(main())"]
PLAN = "plans/double-colored.plan"


def run(*words: str) -> None:
    begin = time.monotonic()
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"cgnrt {' '.join(words)}\n{done.stdout}{done.stderr}")
    print(f"ok, {time.monotonic() - begin:4.1f} s: cgnrt {' '.join(words)}", flush=True)


def draw_photos() -> None:
    """Three photos with a disc each, and their masks."""
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[:96, :96]
    for number, colour in enumerate([(220, 40, 60), (40, 160, 90), (60, 80, 210)]):
        disc = (rows - 40 - 4 * number) ** 2 + (columns - 44) ** 2 < 24**2
        photo = np.where(disc[..., None], colour, np.stack([rows, columns, rows + columns], -1)).astype(
            np.uint8
        )
        for folder, picture in (("photos", photo), ("masks", disc.astype(np.uint8) * 255)):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(picture).save(f"{folder}/{number}.png")


def serve() -> None:
    command = [*COMMAND, "serve", PLAN, "--port", "0", "--no-grpc", "--quiet"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            line = server.stdout.readline()  # double-colored: http://127.0.0.1:43251
            address = re.search(r"http://\S+", line)
            if not address:
                sys.exit(f"cgnrt serve ended, or said: {line}")
            with urllib.request.urlopen(f"{address[0]}/v2/health/ready", timeout=10) as answer:
                print(f"ok: cgnrt serve, ready: {answer.status}", flush=True)
        finally:
            server.terminate()


def main() -> None:
    block = re.search(r"^```python\n(.*?)^```", README.read_text(), re.M | re.S)
    assert block, README
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run("example")
        exec(compile(block[1], str(README), "exec"), {"__name__": "__main__"})
        print("ok: the first Python block of README.md", flush=True)
        run("bench", PLAN)
        draw_photos()
        run("real", "photos", "--masks", "masks", "-n", "4", "-o", "sheet.png")
        if importlib.util.find_spec("prometheus_client"):
            serve()


if __name__ == "__main__":
    main()

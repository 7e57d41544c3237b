"""What the tests are run against: a real gateway in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
import uuid
from pathlib import Path

HERE = Path(__file__).resolve().parent


def binary() -> Path:
    """The built gateway: the one that is named, else that of this tree."""
    named = os.environ.get("TEST_GATEWAY")
    program = Path(named) if named else HERE.parents[2] / "target/debug/onceward"
    if not program.exists():
        raise RuntimeError(f"there is no gateway at {program}: cargo build -p onceward-server")
    return program


class Gateway:
    """A gateway with a data folder of its own, on a free port of this machine."""

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="onceward-python-")
        self._serve("127.0.0.1:0")

    def _serve(self, listen: str) -> None:
        self._process = subprocess.Popen(
            [binary(), "serve", "--listen", listen],
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:
            said.append(line)
            if "is ready" in line:
                self.url = f"http://{json.loads(line)['address']}"
                break
        else:
            raise RuntimeError(f"the gateway does not start:\n{''.join(said)}")
        # What it says from now on is nobody's matter, and must not fill the pipe.
        self._reading = threading.Thread(target=self._process.stderr.read, daemon=True)
        self._reading.start()

    def start_again(self) -> None:
        """Starts it again where it was, with the ledger that it left."""
        self._serve(self.url.removeprefix("http://"))

    def kill(self) -> None:
        """Ends it without a word, as a power cut does."""
        self._process.kill()
        self._process.wait()
        self._reading.join()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def stop(self) -> None:
        """Ends it, and takes its folder away."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)


def fresh(name: str) -> str:
    """A key that no other test has."""
    return f"{name}-{uuid.uuid4()}"

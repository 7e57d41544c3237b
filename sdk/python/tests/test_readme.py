"""What the README shows is run, against a real gateway, and prints what it says there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from world import Gateway

HERE = Path(__file__).resolve().parents[1]
TEXT = (HERE / "README.md").read_text()
BLOCKS = list(re.finditer(r"```python\n(.*?)```\n(?:```text\n(.*?)```\n)?", TEXT, re.DOTALL))


def printed(arguments: list[str], gateway: Gateway) -> str:
    """What a program prints that knows of the gateway by its environment alone."""
    environment = {**os.environ, "ONCEWARD_URL": gateway.url}
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=HERE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_readme_shows_something() -> None:
    assert len(BLOCKS) > 5


@pytest.mark.parametrize(
    "block", BLOCKS, ids=[f"line-{TEXT[: it.start()].count(chr(10)) + 1}" for it in BLOCKS]
)
def test_the_readme_does_what_it_says(block: re.Match[str], gateway: Gateway) -> None:
    assert printed(["-c", block[1]], gateway) == (block[2] or "")


def test_the_consumer_has_one_effect_for_each_message(gateway: Gateway) -> None:
    said = printed([str(HERE / "examples/consumer.py")], gateway)
    assert said == "5 deliveries, 2 mails: welcome-anna, welcome-otto\n"

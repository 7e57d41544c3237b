#!/usr/bin/env python3
"""Orders a few things in PostgreSQL, one of which is sold out, while the gateway is down.

DATABASE_URL=postgres://… python3 run.py: a database for this alone; psql and cargo are at hand.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from stage import Stage, expect, listen, until

with Stage(__file__, "GATEWAY", "WAREHOUSE") as stage:
    picks = {}

    def warehouse(method, path, headers, body):
        """Picks once for a key, and loses its first answer to each."""
        is_new = headers["Idempotency-Key"] not in picks
        pick = picks.setdefault(headers["Idempotency-Key"], json.loads(body))
        return None if is_new else (201, pick)

    stage.environment["PGOPTIONS"] = "--client-min-messages=warning"
    ddl = stage.folder / "ddl.sql"
    ddl.write_text(stage.command("sql", "ddl", "--dialect", "postgres"))
    stage.run("psql", "-q1", "-v", "ON_ERROR_STOP=1", "-f", str(ddl), os.environ["DATABASE_URL"])
    manifest = ["--manifest-path", str(stage.here / "Cargo.toml")]
    subprocess.run(["cargo", "build", *manifest], check=True)
    shop = ["cargo", "run", "--quiet", *manifest, "--"]

    print(stage.run(*shop, "ada", "lamp", "sold out", "desk"))
    listen(stage.ports["WAREHOUSE"], warehouse)
    stage.start_gateway()
    until("the lamp and the desk are picked", lambda: len(picks) >= 2)
    count = "SELECT count(*) FROM onceward.outbox"
    until("the outbox is empty", lambda: stage.run("psql", "-Atc", count, os.environ["DATABASE_URL"]) == "0")
    expect("picked", ", ".join(pick["item"] for pick in picks.values()), "lamp, desk")

"""Deploys what is pushed, once: the inbox and the deployment are written in one transaction."""

import json
import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

HOST, PORT = os.environ.get("APP", "127.0.0.1:3000").split(":")
DATABASE = os.environ.get("APP_DATABASE", "app.db")
TABLES = """
CREATE TABLE IF NOT EXISTS inbox (id TEXT PRIMARY KEY);
CREATE TABLE IF NOT EXISTS deployments (ref TEXT NOT NULL, head TEXT NOT NULL);
"""


def handle(webhook_id, push):
    """Whoever delivers this webhook again finds its row in the inbox, and changes nothing."""
    database = sqlite3.connect(DATABASE, timeout=30)
    with database:
        is_first = database.execute("INSERT OR IGNORE INTO inbox VALUES (?)", [webhook_id]).rowcount
        if is_first:
            row = [push["ref"], push["after"]]
            database.execute("INSERT INTO deployments VALUES (?, ?)", row)
    database.close()


class Hooks(BaseHTTPRequestHandler):
    def do_POST(self):
        push = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        # The gateway has verified it, and names it the same each time.
        handle(self.headers["webhook-id"], push)
        if "--crash-once" in sys.argv:
            # It was handled, and nobody hears of it.
            os._exit(1)
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    connection = sqlite3.connect(DATABASE)
    connection.executescript(TABLES)
    connection.close()
    ThreadingHTTPServer((HOST, int(PORT)), Hooks).serve_forever()

"""What the examples' `run.py` share: free ports, processes that can be killed, others' services to call.

None of it is needed to use Onceward: read an example's README and its programs first.
"""

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

# How many seconds anything is waited for that has to come.
PATIENCE = 60


class Stage:
    """A folder, a free port for each of `names`, and what was started: until the end of a `with`."""

    def __init__(self, here, *names):
        flags = argparse.ArgumentParser()
        flags.add_argument("--onceward", default="onceward", help="the gateway's binary")
        binary = flags.parse_known_args()[0].onceward
        self.onceward = str(Path(binary).resolve()) if os.sep in binary else binary
        self.here = Path(here).resolve().parent
        held = {name: held_port() for name in names}
        self.ports = {name: port.getsockname()[1] for name, port in held.items()}
        # Elsewhere than on Linux a port that is held is nobody's to listen on.
        self.held = held if sys.platform == "linux" else None
        self.temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self.temporary.name)
        self.environment = {
            **os.environ,
            **{name: f"127.0.0.1:{port}" for name, port in self.ports.items()},
            "ONCEWARD_URL": f"http://127.0.0.1:{self.ports['GATEWAY']}",
        }
        self.processes, self.gateway = [], None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes:
            kill(process)
        self.temporary.cleanup()

    def url(self, name, path=""):
        return f"http://127.0.0.1:{self.ports[name]}{path}"

    def start(self, name, *command):
        """Starts a program, and waits until it listens on the port `name`."""
        process = self.begin(*command, stdout=self.log(), stderr=self.log())

        def listens():
            if process.poll() is not None:
                raise SystemExit(f"{name} ended:\n{(self.folder / 'log').read_text()}")
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.ports[name])) == 0

        until(f"{name} listens", listens)
        return process

    def begin(self, *command, **options):
        """Starts a program."""
        place = {"cwd": self.folder, "env": self.environment, "start_new_session": True}
        process = subprocess.Popen(command, **place, **options)
        self.processes.append(process)
        return process

    def log(self):
        return open(self.folder / "log", "ab")

    def run(self, *command):
        """Runs a program of the example to its end, and gives what it printed."""
        program = self.begin(*command, stdout=subprocess.PIPE, text=True)
        printed, _ = program.communicate(timeout=PATIENCE)
        if program.returncode != 0:
            raise SystemExit(f"{command} ended with {program.returncode}: {printed}")
        return printed.strip()

    def python(self, name, *arguments):
        return self.run(sys.executable, str(self.here / name), *arguments)

    def command(self, *arguments):
        return self.run(self.onceward, *arguments)

    def start_gateway(self):
        config = str(self.here / "onceward.toml")
        self.gateway = self.start("GATEWAY", self.onceward, "serve", "--config", config)
        until("the gateway is ready", lambda: ask(self.url("GATEWAY", "/readyz"))[0] == 200)

    def kill_gateway(self):
        """kill -9, as a power cut would."""
        kill(self.gateway)


def kill(process):
    """kill -9, for it and what it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def held_port():
    """A port that nobody else is given as long as this is open; a program that names it may listen there."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def until(what, look):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise SystemExit(f"waited in vain: {what}")


def expect(what, came, wanted):
    """Says what came, and ends the example where something else was wanted."""
    if came != wanted:
        raise SystemExit(f"NOT SO: {what}: {came!r}, and not {wanted!r}")
    print(f"{what}: {came}")


def ask(url, document=None, headers=None):
    """Status, headers and body of an answer, whatever the status."""
    body = document if isinstance(document, bytes | None) else json.dumps(document).encode()
    headers = {"Content-Type": "application/json", **(headers or {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as refused:
        return refused.status, refused.headers, refused.read()
    except OSError:
        return 0, {}, b""


def listen(port, answer):
    """Others' service: `answer(method, path, headers, body)` is a status and a document; None hangs up."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self):
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            answered = answer(self.command, self.path, self.headers, body)
            if answered is None:
                self.close_connection = True
                return
            status, document = answered
            body = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_DELETE = handle_any

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    # A client that was killed is no trouble of the server's.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()

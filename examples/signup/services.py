"""The services of others: a mail server, a CRM with an inbox, and a billing API that takes keys.

They count what reaches them. None of them fails by itself: faults are the gateway's, on purpose.
"""

import json
import socketserver
import sqlite3
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mails:
    """A server that speaks as much SMTP as a mail needs, and keeps what it takes."""

    def __init__(self, address):
        self.taken, self.lock = [], threading.Lock()
        mails = self

        class Dialogue(socketserver.StreamRequestHandler):
            def handle(self):
                mails.speak(self.rfile, self.wfile)

        self.server = socketserver.ThreadingTCPServer(address, Dialogue)
        self.server.daemon_threads = True
        start(self.server)

    def speak(self, lines, out):
        out.write(b"220 mail.example.com\r\n")
        for line in lines:
            verb = line[:4].upper()
            if verb == b"QUIT":
                out.write(b"221 bye\r\n")
                return
            if verb != b"DATA":
                out.write(b"250 ok\r\n")
                continue
            out.write(b"354 go on\r\n")
            mail = {}
            for line in lines:
                if line == b".\r\n":
                    break
                name, _, value = line.decode().strip().partition(": ")
                mail.setdefault(name, value)
            else:
                return
            with self.lock:
                self.taken.append(mail)
                number = len(self.taken)
            out.write(f"250 2.0.0 Ok: queued as M{number}\r\n".encode())

    def subjects(self):
        with self.lock:
            return [mail["Subject"] for mail in self.taken]

    def has(self, message_id):
        """Whether its log has a mail of this name."""
        with self.lock:
            return any(mail["Message-ID"] == message_id for mail in self.taken)


class Crm:
    """Takes webhooks: the inbox and the record are written in one transaction."""

    def __init__(self, address):
        self.lock = threading.Lock()
        self.database = sqlite3.connect(":memory:", check_same_thread=False)
        self.database.execute("CREATE TABLE inbox (id TEXT PRIMARY KEY)")
        self.database.execute("CREATE TABLE contacts (user TEXT, email TEXT)")
        serve(address, self.hear)

    def hear(self, headers, document):
        with self.lock, self.database as transaction:
            new = transaction.execute(
                "INSERT OR IGNORE INTO inbox VALUES (?)", [headers["webhook-id"]]
            )
            if new.rowcount:
                row = [document["user"], document["email"]]
                transaction.execute("INSERT INTO contacts VALUES (?, ?)", row)
        return 204, None

    def contacts(self):
        with self.lock:
            return [user for (user,) in self.database.execute("SELECT user FROM contacts")]


class Billing:
    """Charges once for a key, and gives the same receipt to whoever asks again with it."""

    def __init__(self, address):
        self.lock, self.charges, self.calls = threading.Lock(), {}, 0
        serve(address, self.charge)

    def charge(self, headers, document):
        with self.lock:
            self.calls += 1
            key = headers["Idempotency-Key"]
            receipt = {"charge": f"ch-{len(self.charges) + 1}", **document}
            return 201, self.charges.setdefault(key, receipt)


def serve(address, answer):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, document = answer(self.headers, json.loads(body))
            body = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            if document is not None:
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    start(ThreadingHTTPServer(address, Handler))


def start(server):
    # A client that was killed is no trouble of the server's.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()

"""The signup API: it makes a user, and has a mail sent, the CRM told and the plan charged.

Each of the four has a name that follows from the signup and not from the attempt. So whoever asks
again, however often and from wherever the last try broke off, brings about what is missing and
nothing else. A charge is one for each day, which stands in its name.
"""

import base64
import hashlib
import hmac
import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GATEWAY = "http://" + os.environ.get("GATEWAY", "127.0.0.1:7077")
HOST, PORT = os.environ.get("APP", "127.0.0.1:3000").split(":")
SECRET = os.environ["CRM_SECRET"]
DATABASE = os.environ.get("APP_DATABASE", "signup.db")


class Refused(OSError):
    """The gateway did not do it, or does not know whether it was done."""

    def __init__(self, path, answer):
        super().__init__(f"{path}: {answer.code} {answer.read().decode()}")
        self.state = answer.headers["Onceward-State"]


def user_of(email):
    """The user with this address, made where there is none."""
    with sqlite3.connect(DATABASE, timeout=30) as database:
        database.execute("INSERT OR IGNORE INTO users (email) VALUES (?)", [email])
        (number,) = database.execute("SELECT id FROM users WHERE email = ?", [email]).fetchone()
    database.close()
    return f"u-{number}"


def post(path, headers, document):
    body = json.dumps(document, sort_keys=True).encode()
    headers = {"Content-Type": "application/json", **headers}
    request = urllib.request.Request(GATEWAY + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()
    except urllib.error.HTTPError as refused:
        raise Refused(path, refused) from refused


def send_welcome(user, email):
    mail = {
        "from": "Shop <shop@example.com>",
        "to": email,
        "subject": f"Welcome, {user}",
        "text": "Your account is ready.",
    }
    try:
        post("/to/mail", {"Idempotency-Key": f"welcome:{user}"}, mail)
    except Refused as refused:
        # It may have been sent, and a person looks into it; or one has, and there is no answer to it but
        # theirs. That is no reason to keep a user waiting.
        if refused.state not in ("in_doubt", "done"):
            raise


def tell_crm(user, email):
    event = {"type": "user.signed_up", "user": user, "email": email}
    name, at = f"signup-{user}", str(int(time.time()))
    signed = f"{name}.{at}.".encode() + json.dumps(event, sort_keys=True).encode()
    secret = base64.b64decode(SECRET.removeprefix("whsec_"))
    signature = base64.b64encode(hmac.digest(secret, signed, hashlib.sha256)).decode()
    headers = {
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{signature}",
    }
    post("/in/crm", headers, event)


def charge(user, plan):
    # Its key is made by the route: <user>:<plan>:<day>.
    return json.loads(post("/to/billing/charges", {}, {"user": user, "plan": plan}))


class Signup(BaseHTTPRequestHandler):
    """POST /signups {"email", "plan"}."""

    def do_POST(self):
        wanted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            user = user_of(wanted["email"])
            send_welcome(user, wanted["email"])
            tell_crm(user, wanted["email"])
            receipt = charge(user, wanted["plan"])
        except OSError as error:
            # The gateway was away, or does not know yet: ask again.
            return self.answer(503, {"error": str(error)})
        return self.answer(201, {"user": user, "charge": receipt["charge"]})

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    with sqlite3.connect(DATABASE) as database:
        database.execute("CREATE TABLE IF NOT EXISTS users (id INTEGER PRIMARY KEY, email TEXT UNIQUE)")
    database.close()
    ThreadingHTTPServer((HOST, int(PORT)), Signup).serve_forever()

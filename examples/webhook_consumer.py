#!/usr/bin/env python3
"""Receives Doorbuster's webhooks: verifies each call, remembers its id, and prints every event once.

    WEBHOOK_SECRET=whsec_... python3 webhook_consumer.py PORT EVENTS.sqlite
"""
import base64, hashlib, hmac, json, os, sqlite3, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer

KEY = base64.b64decode(os.environ["WEBHOOK_SECRET"].removeprefix("whsec_"))
EVENTS = sqlite3.connect(sys.argv[2])
EVENTS.execute("CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, body TEXT NOT NULL)")
TOLERANCE_SECONDS = 300  # older calls may be somebody repeating what they have overheard


def is_genuine(call_id, timestamp, signatures, body):
    if not timestamp.isdecimal() or abs(time.time() - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = f"{call_id}.{timestamp}.".encode() + body
    expected = b"v1," + base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest())
    # Several while a secret rotates: one that fits is enough.
    return any(hmac.compare_digest(expected, signature.encode()) for signature in signatures.split())


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        header = lambda name: self.headers.get(name, "")
        body = self.rfile.read(min(int(header("content-length") or 0), 1 << 20))
        if not is_genuine(header("webhook-id"), header("webhook-timestamp"), header("webhook-signature"), body):
            return self.answer(401)
        with EVENTS:  # remembered and acted upon in one transaction: a repeated call changes nothing
            new = EVENTS.execute("INSERT OR IGNORE INTO events VALUES (?, ?)", (header("webhook-id"), body.decode()))
            if new.rowcount == 1:
                event = json.loads(body)
                print(event["sale"], event["position"], event["type"], event["data"].get("order", ""), flush=True)
        self.answer(204)

    def answer(self, status):
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_):
        pass


HTTPServer(("127.0.0.1", int(sys.argv[1])), Receiver).serve_forever()

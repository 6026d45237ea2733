#!/usr/bin/env python3
"""A shop that takes the money itself: believes hold tokens without asking anybody, is paid, and confirms the order.

    shop.py PORT ENGINE_ADMIN ADMIN_TOKEN SALE SIGNING_KEY

SIGNING_KEY is `signing_key` of GET /v1/sales/SALE, published before the sale. ADMIN_TOKEN is a cashier's. A customer posts their hold token to
/checkout; a real shop would take the money between the two steps. Needs openssl for the signature, and nothing else.
"""
import base64, json, subprocess, sys, tempfile, time, urllib.error, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT, ADMIN, TOKEN, SALE, KEY = sys.argv[1:6]
PUBLIC_KEY_INFO = bytes.fromhex("302a300506032b6570032100")  # the DER form of an Ed25519 public key begins so


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def believed(token):
    """The token's content, or an error if the sale's key has not signed it for now."""
    signed, _, signature = token.rpartition(".")
    with tempfile.TemporaryDirectory() as folder:
        for name, data in (("key", PUBLIC_KEY_INFO + decode(KEY)), ("text", signed.encode()), ("signature", decode(signature))):
            open(f"{folder}/{name}", "wb").write(data)
        verify = ["openssl", "pkeyutl", "-verify", "-pubin", "-keyform", "DER", "-inkey", f"{folder}/key", "-rawin"]
        verify += ["-in", f"{folder}/text", "-sigfile", f"{folder}/signature"]
        if subprocess.run(verify, capture_output=True).returncode != 0:
            raise ValueError("not signed by the sale")
    hold = json.loads(decode(signed.split(".")[1]))
    if hold["sale"] != SALE or hold["exp"] <= time.time():
        raise ValueError("another sale's, or its time is over")
    return hold


def confirm(order):
    """Twice is once, so an answer that got lost is asked for again."""
    request = urllib.request.Request(f"http://{ADMIN}/admin/v1/orders/{order}/confirm", method="POST")
    request.add_header("authorization", f"Bearer {TOKEN}")
    try:
        return json.load(urllib.request.urlopen(request, timeout=10))
    except urllib.error.HTTPError as error:
        return json.load(error)


class Shop(BaseHTTPRequestHandler):
    def do_POST(self):
        try:
            hold = believed(self.rfile.read(int(self.headers["content-length"])).decode())
            # Here the customer pays hold["amount"] of hold["currency"].
            order = confirm(hold["order"])
            status, answer = (200 if order.get("status") == "confirmed" else 409), order
        except (ValueError, KeyError, IndexError) as error:
            status, answer = 400, {"error": str(error)}
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(PORT)), Shop)
print(server.server_port, flush=True)
server.serve_forever()

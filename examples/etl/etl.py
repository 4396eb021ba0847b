#!/usr/bin/env python3
"""Loads sales into a database, a thousand in one transaction. Python 3.9, nothing else.

    FACTS=facts.db PORT=9000 python3 etl.py

    transform: {http: {urls: ["http://127.0.0.1:9000/"], timeout: 1m}}
    batch: {records: 1000, wait: 1s}

A sale is {"amount": "12.50", "currency": "EUR", ...}. It becomes a row, and goes on as
a fact: the same with "cents". The contract is in docs/workers.md.
"""

import base64
import decimal
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

RATES = {"EUR": decimal.Decimal(1), "GBP": decimal.Decimal("1.15"), "USD": decimal.Decimal("0.86")}


class Reject(Exception):
    """This record can never work."""


def transform(record):
    """Return the fact that a record tells of, or None for a tombstone."""
    value = record["value"]
    if value is None:
        return None
    if isinstance(value, dict):
        raise Reject("the value is not UTF-8: %d bytes" % len(base64.b64decode(value["base64"])))
    try:
        sale = json.loads(value)
        amount = decimal.Decimal(sale["amount"])
        cents = int((amount * 100 * RATES[sale["currency"]]).to_integral_value())
    except (ValueError, TypeError, KeyError, ArithmeticError) as err:
        raise Reject("no sale: %s" % type(err).__name__) from err
    return {**sale, "cents": cents}


class Warehouse:
    """The database. A row that is there already is left alone: records may come again."""

    def __init__(self, path):
        self.lock = threading.Lock()
        self.db = sqlite3.connect(path, check_same_thread=False, timeout=5)
        with self.db:
            self.db.execute("CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, cents INTEGER, fact TEXT) WITHOUT ROWID")

    def load(self, rows):
        """Load all rows, or none."""
        with self.lock, self.db:
            self.db.executemany("INSERT OR IGNORE INTO facts VALUES (?, ?, ?)", rows)


def run(records, warehouse):
    """Return the answers to the records of a batch."""
    answers, rows = [], []
    for record in records:
        try:
            fact = transform(record)
        except Reject as err:
            answers.append({"id": record["id"], "error": str(err), "kind": "reject"})
            continue
        text = None
        if fact is not None:
            text = json.dumps(fact)
            rows.append((record["idempotency_key"], fact["cents"], text))
        answers.append({"id": record["id"], "outputs": [{"value": text}]})
    warehouse.load(rows)
    return answers


class Worker(BaseHTTPRequestHandler):
    """Answers one connection."""

    protocol_version = "HTTP/1.1"  # keeps connections
    wbufsize = -1  # a reply is written at once
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.busy():
            self.reply(*self.answer(body))

    def answer(self, body):
        """Return status, headers and body."""
        if "Seriatim-Batch" not in self.headers:
            return 501, {"Seriatim-Error": "this%20worker%20takes%20batches:%20set%20batch"}, b""
        if int(self.headers["Seriatim-Deadline-Ms"]) < time.time() * 1000:
            return 503, {}, b""  # nobody waits any more
        records = [json.loads(line) for line in body.decode().split("\n") if line]
        try:
            answers = run(records, self.server.warehouse)
        except sqlite3.OperationalError:  # locked, or the disk is full: not the records' fault
            return 503, {"Retry-After": "2"}, b""
        print("loaded a batch of", len(records), flush=True)
        lines = "".join(json.dumps(a) + "\n" for a in answers)
        return 200, {"Content-Type": "application/x-ndjson"}, lines.encode()

    def reply(self, status, headers, body):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.server.ending:
            self.send_header("Connection", "close")  # and so it is
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """Answers any number of requests at once, and ends when it has answered them."""

    daemon_threads = True  # connections without a request do not keep it alive
    request_queue_size = 128

    def __init__(self, address, warehouse):
        super().__init__(address, Worker)
        self.warehouse = warehouse
        self.ending = False
        self.requests = 0
        self.changed = threading.Condition()

    def busy(self):
        return self

    def __enter__(self):
        with self.changed:
            self.requests += 1

    def __exit__(self, *_):
        with self.changed:
            self.requests -= 1
            self.changed.notify_all()

    def end(self, *_):
        """Stop accepting."""
        self.ending = True
        threading.Thread(target=self.shutdown).start()  # waits for serve_forever

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # whom nobody waits for
            super().handle_error(request, client_address)


def main():
    warehouse = Warehouse(os.environ.get("FACTS", "facts.db"))
    address = os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "9000"))
    server = Server(address, warehouse)
    signal.signal(signal.SIGTERM, server.end)
    signal.signal(signal.SIGINT, server.end)
    print("listening on http://%s:%d" % server.server_address[:2], flush=True)
    server.serve_forever()
    server.socket.close()
    with server.changed:
        server.changed.wait_for(lambda: server.requests == 0)


if __name__ == "__main__":
    main()

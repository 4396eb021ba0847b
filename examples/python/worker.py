"""A worker for Seriatim with nothing but Python 3.9. Copy this file and edit transform();
the rest speaks the contract of docs/workers.md.

    python3 worker.py 9000      over HTTP      transform: {http: {urls: ["http://127.0.0.1:9000/"]}}
    python3 worker.py           over lines     transform: {exec: {command: [python3, worker.py]}}
"""

import base64
import http.client
import json
import math
import os
import signal
import sys
import threading
import time
import traceback
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Callable


class Reject(Exception):
    """This record can never work."""


class Retry(Exception):
    """Ask again, after so many seconds at least."""

    def __init__(self, reason, seconds=0):
        super().__init__(reason)
        self.seconds = seconds


@dataclass
class Record:
    pipeline: str
    topic: str
    partition: int
    offset: int
    timestamp: int  # milliseconds since 1970
    key: "bytes | None"
    value: "bytes | None"
    headers: list  # of (name, bytes or None), in order
    attempt: int  # counts from 1
    deadline: int  # when Seriatim gives up, milliseconds since 1970
    idempotency_key: str
    noted: str  # what an earlier attempt noted last, or ""
    report: Callable  # (what, value) to Seriatim, while this attempt runs

    def extend(self, ms):
        """Asks for more time: so many milliseconds from now."""
        self.report("extend", ms)

    def note(self, text):
        """Leaves a note for the next attempt, up to 1 KiB."""
        self.report("note", text)


def transform(record):
    """Makes the outputs of a record: a list of dicts with "value", and "key" and
    "headers" if these shall change. Values are bytes, text or None; a header has one
    or a list of them, and [] drops it. Any number of threads call it at once, and it
    may get a record again."""
    if ("Test", b"yes") in record.headers:
        return []  # no output
    if record.value is None:
        return [{"value": None}]  # a tombstone stays one
    try:
        order = json.loads(record.value)
    except ValueError:
        order = None
    if isinstance(order, list):
        return [{"value": compact(one)} for one in order]
    if not isinstance(order, dict):
        raise Reject("the value is no JSON object or array")
    if order.get("account") == "busy":
        raise Retry("the bank is busy", 1)
    if order.get("account") == "slow":
        record.note("the bank was asked")  # the next attempt might look for the answer first
        record.extend(int(order["seconds"] * 1000) + 10_000)
        time.sleep(order["seconds"])
        order["noted"] = record.noted
    # A bank that knows the key would not be charged twice.
    order["receipt"] = record.idempotency_key
    return [{"value": compact(order), "headers": {"content-type": "application/json"}}]


def compact(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# --- The contract, in JSON: over lines, and for the outputs in a reply over HTTP.


def in_json(value):
    """Bytes as they stand in JSON: null, text, or base64."""
    if value is None or isinstance(value, str):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def from_json(value):
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def output_json(output):
    done = {"value": in_json(output["value"])}
    if "key" in output:
        done["key"] = in_json(output["key"])
    headers = output.get("headers", {})
    done["headers"] = {
        name: [in_json(one) for one in (value if isinstance(value, list) else [value])] for name, value in headers.items()
    }
    return done


def reason(error):
    return str(error)[:300] or type(error).__name__


# --- Over HTTP.


direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # whatever the environment says


def header_name(field, prefix):
    """The name of a record header, or None. Small letters are meant."""
    if field.lower().startswith(prefix):
        return urllib.parse.unquote(field.lower()[len(prefix) :])
    return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keeps connections
    disable_nagle_algorithm = True  # or a reply in two pieces waits 40 ms

    def do_POST(self):
        value = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            outputs = [output_json(output) for output in transform(self.record(value))]
        except Reject as error:
            self.reply(422, {"Seriatim-Error": urllib.parse.quote(reason(error))})
        except Retry as error:
            self.reply(503, {"Seriatim-Error": urllib.parse.quote(reason(error)), "Retry-After": str(math.ceil(error.seconds))})
        except Exception as error:
            traceback.print_exc()
            self.reply(500, {"Seriatim-Error": urllib.parse.quote(reason(error))})
        else:
            self.reply(200, {"Content-Type": "application/vnd.seriatim.outputs+json"}, json.dumps(outputs).encode())

    def record(self, value):
        get = lambda name: self.headers["Seriatim-" + name]
        headers = []
        for field, text in self.headers.items():
            if (name := header_name(field, "seriatim-h-")) is not None:
                headers.append((name, urllib.parse.unquote_to_bytes(text)))
            elif (name := header_name(field, "seriatim-hn-")) is not None:
                headers.append((name, None))
        return Record(
            pipeline=get("Pipeline"),
            topic=get("Topic"),
            partition=int(get("Partition")),
            offset=int(get("Offset")),
            timestamp=int(get("Timestamp")),
            key=None if get("Key") is None else urllib.parse.unquote_to_bytes(get("Key")),
            value=None if get("Value") == "null" else value,
            headers=headers,
            attempt=int(get("Attempt")),
            deadline=int(get("Deadline-Ms")),
            idempotency_key=self.headers["Idempotency-Key"].strip('"'),
            noted=urllib.parse.unquote(get("Note") or ""),
            report=self.report,
        )

    def report(self, what, value):
        url = self.headers["Seriatim-Attempt-Url"]
        if url is None:
            return  # callbacks are not configured
        method, body = ("PUT", value) if what == "note" else ("POST", json.dumps({"ms": value}))
        try:
            direct.open(urllib.request.Request(f"{url}/{what}", body.encode(), method=method), timeout=5).close()
        except OSError:
            pass  # the attempt is over (409), or nobody listens

    def reply(self, status, headers, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        if self.server.stopping:
            self.send_header("Connection", "close")  # the server closes it, too
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections come in bursts
    daemon_threads = False  # what runs may finish
    stopping = False

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):  # else Seriatim waits no more
            super().handle_error(request, client_address)


def serve(port):
    http.client._MAXHEADERS = 10_000  # of a request; else 100, and a record may have more
    server = Server((os.environ.get("HOST", "127.0.0.1"), port), Handler)

    def stop(*_):
        server.stopping = True
        threading.Thread(target=server.shutdown).start()
        last = threading.Timer(10, os._exit, [1])
        last.daemon = True
        last.start()

    signal.signal(signal.SIGTERM, stop)
    print(f"listening on http://{server.server_address[0]}:{server.server_address[1]}", flush=True)
    server.serve_forever()
    server.server_close()  # waits for the threads; Seriatim closes connections that are idle


# --- Over lines.


def answer(message, report):
    headers = [
        (name, from_json(value))
        for name, values in message["headers"].items()
        for value in (values if isinstance(values, list) else [values])
    ]
    record = Record(
        **{name: message[name] for name in ("pipeline", "topic", "partition", "offset", "timestamp", "attempt", "idempotency_key")},
        key=from_json(message["key"]),
        value=from_json(message["value"]),
        headers=headers,
        deadline=message["deadline_ms"],
        noted=message.get("note", ""),
        report=report,
    )
    try:
        return {"outputs": [output_json(output) for output in transform(record)]}
    except Reject as error:
        return {"error": reason(error), "kind": "reject"}
    except Retry as error:
        return {"error": reason(error), "kind": "retry", "after_ms": int(error.seconds * 1000)}
    except Exception as error:
        traceback.print_exc()
        return {"error": reason(error), "kind": "retry"}


def stdio(threads):
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is printed goes to standard error
    lock = threading.Lock()

    def send(message):
        with lock:
            answers.write(json.dumps(message).encode() + b"\n")
            answers.flush()

    def handle(line):
        message = json.loads(line)
        call = {"id": message["id"]}
        send({**call, **answer(message, lambda what, value: send({**call, what: value}))})

    send({"seriatim": 1})
    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin.buffer:
            pool.submit(handle, line)
    # The input has ended, and all is answered.


if __name__ == "__main__":
    if len(sys.argv) > 1:
        serve(int(sys.argv[1]))
    else:
        stdio(threads=32)  # in_flight

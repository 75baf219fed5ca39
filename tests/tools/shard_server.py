"""shard_server.py FOLDER - the files of FOLDER as an HTTP server and as an S3 store, with faults. Prints its port.

/plain/PATH, /s3/BUCKET/KEY (signed by the key AKIDTEST or one of aws_roles.py, or anonymous below /s3/public/), and the
sources of such keys: /latest/, /container, /sts/. Faults are in the file FOLDER/../faults, reloaded for every request, one
per line: NAME [NUMBER] PART-OF-THE-PATH; with a NUMBER only that often.

    503      answers 503                            cut      ends the connection in the middle of the body
    late     waits 20 ms, or MODE_TEST_LATE_MS, before it answers
    slow     sends slowly                           stall    sends half and then nothing
    404, 403 that status                            changed  another ETag
    over     the key's session has expired
    nohead   HEAD is refused, as for presigned URLs norange  ranges are not supported
    sign     403 without ?signature=right           weak     a weak ETag
    away     redirects to the other host            wrong    one byte is wrong
    noetag   Last-Modified instead of an ETag       bare     neither
    md5      Content-MD5 of the file

Every request is a line of FOLDER/../requests: METHOD PATH STATUS RANGE AUTHORIZATION."""

import base64
import hashlib
import http.server
import os
import sys
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
import aws_roles  # noqa: E402 -- beside this file

ROOT = os.path.abspath(sys.argv[1])
PLACE = os.path.dirname(ROOT)
KEYS = aws_roles.Keys(PLACE)
KEYS.add("AKIDTEST", "secret/of+the=test", "token+of/test==")
LOCK = threading.Lock()
COUNTS = {}


def faults(path):
    found = set()
    try:
        lines = open(os.path.join(PLACE, "faults")).read().splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[-1] not in path:
            continue
        if len(words) == 3:
            with LOCK:
                COUNTS[line] = COUNTS.get(line, 0) + 1
                if COUNTS[line] > int(words[1]):
                    continue
        found.add(words[0])
    return found


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a response is two small writes

    def log_message(self, *args):
        pass

    def said(self, status):
        with LOCK, open(os.path.join(PLACE, "requests"), "a") as f:
            print(self.command, self.path, status, self.headers.get("Range", "-"),
                  self.headers.get("Authorization", "-").replace(" ", "_"), file=f)

    def refuse(self, status, code=None):
        body = ("<?xml?><Error><Code>%s</Code></Error>" % code).encode() if code else b""
        self.said(status)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def give(self, path):
        """Temporary keys."""
        now = faults(path)
        self.form = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if "stall" in now:
            time.sleep(600)
        for status in "503", "404", "403":
            if status in now:
                return self.refuse(int(status), "AccessDenied" if status == "403" else None)
        status, text = (KEYS.machine(self, path) if path.startswith("/latest/") else
                        KEYS.sts(self, path) if path.startswith("/sts") else KEYS.container(self))
        self.said(status)
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_PUT(self):
        self.give(self.path)

    def do_POST(self):
        self.give(self.path)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path, _, query = self.path.partition("?")
        now = faults(path)
        if "late" in now:
            time.sleep(int(os.environ.get("MODE_TEST_LATE_MS", "20")) / 1000)
        if path.startswith(("/latest/", "/container")):
            return self.give(path)
        if path.startswith("/s3/") and not path.startswith("/s3/public/"):
            code = KEYS.refusal(self, path, "s3", self.headers.get("x-amz-content-sha256"))
            if code or "over" in now:
                return self.refuse(400 if code in (None, "ExpiredToken") else 403, code or "ExpiredToken")
        if "sign" in now and query != "signature=right":
            return self.refuse(403)
        if "nohead" in now and self.command == "HEAD":
            return self.refuse(403)
        for status in "503", "404", "403":
            if status in now:
                return self.refuse(int(status), "SlowDown" if status == "503" else None)
        if "away" in now:
            self.said(302)
            self.send_response(302)
            self.send_header("Location", "http://localhost:%d%s" % (self.server.server_address[1], path.replace("away", "plain")))
            self.send_header("Content-Length", "0")
            return self.end_headers()
        name = urllib.parse.unquote(path).split("/", 2)[-1]
        try:
            file = open(os.path.join(ROOT, name), "rb")
        except OSError:
            return self.refuse(404, "NoSuchKey")
        with file:
            return self.answer(path, now, file)

    def answer(self, path, now, file):
        total = os.fstat(file.fileno()).st_size
        etag = '"%s"' % (hashlib.md5(file.read()).hexdigest() if path.startswith("/s3/") else "v1-%d" % total)
        if "changed" in now:
            etag = '"another"'
        if "weak" in now:
            etag = "W/" + etag
        if self.headers.get("If-Match", etag) != etag:
            return self.refuse(412)
        first, end, span = 0, total, self.headers.get("Range")
        if span and "norange" not in now:
            a, b = span.split("=")[1].split("-")
            first, end = int(a), min(int(b) + 1 if b else total, total)
            if first >= total:
                return self.refuse(416)
        ranged = bool(span) and "norange" not in now
        self.said(206 if ranged else 200)
        self.send_response(206 if ranged else 200)
        if ranged:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (first, end - 1, total))
        self.send_header("Content-Length", str(end - first))
        if "md5" in now:
            file.seek(0)
            md5 = hashlib.md5(file.read())
            self.send_header("Content-MD5", base64.b64encode(md5.digest()).decode())
        if "noetag" in now:
            self.send_header("Last-Modified", "Wed, 21 Oct 2015 07:28:00 GMT")
        elif "bare" not in now:
            self.send_header("ETag", etag)
        self.end_headers()
        if self.command == "HEAD":
            return
        file.seek(first)
        body = file.read(end - first)
        if "wrong" in now and first == 0:
            body = bytes([body[0] ^ 1]) + body[1:]
        if "cut" in now and len(body) > 1:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            self.close_connection = True
            return self.connection.close()
        if "stall" in now:
            self.wfile.write(body[:len(body) // 2])
            self.wfile.flush()
            time.sleep(600)
        step = max(1, len(body) // 20) if "slow" in now else len(body) or 1
        try:
            for at in range(0, len(body), step):
                self.wfile.write(body[at:at + step])
                if "slow" in now:
                    self.wfile.flush()
                    time.sleep(0.1)
        except OSError:
            pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


server = Server(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()

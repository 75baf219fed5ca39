"""aws_roles.py - mocks of AWS's sources of temporary credentials, for shard_server.py: instance metadata (/latest/, IMDSv2
only), container metadata (/container), and STS (/sts/). Keys are valid for the seconds in FOLDER/../life (3600)."""

import base64
import hashlib
import hmac
import json
import os
import threading
import time
import urllib.parse

WEB_TOKEN, CONTAINER_TOKEN, MACHINE_TOKEN, REGION = "right.web/token==", "container token==", "machine-token==", "eu-test-1"
ROLES = ("arn:aws:iam::1:role/web", "arn:aws:iam::1:role/other")
SESSION = "<%s><Error><Code>%s</Code><Message>%s</Message></Error></%s>"


def signature(secret, method, path, headers, names, stamp, scope, digest):
    """AWS's Signature Version 4, implemented from its specification."""
    lines = "".join("%s:%s\n" % (n, " ".join(headers[n].split())) for n in names)
    canonical = "\n".join([method, path, "", lines, ";".join(names), digest])
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("AWS4" + secret).encode()
    for part in scope.split("/") + [text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


class Keys:
    """Every existing key, by its id: secret, token or None, expiry in seconds since 1970."""

    def __init__(self, place):
        self.place, self.lock, self.known, self.n = place, threading.Lock(), {}, 0

    def add(self, key, secret, token=None, end=float("inf")):
        self.known[key] = (secret, token, end)

    def issue(self):
        try:
            life = float(open(os.path.join(self.place, "life")).read())
        except (OSError, ValueError):
            life = 3600
        with self.lock:
            self.n += 1
            key = "ASIA%04d" % self.n
        secret = "issued/secret+" + base64.b64encode(os.urandom(12)).decode()
        token = "issued/token+" + base64.b64encode(os.urandom(48)).decode()
        end = int(time.time() + life)
        self.add(key, secret, token, end)
        return key, secret, token, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))

    def refusal(self, handler, path, service, digest):
        """None: the request is signed by a valid key; else AWS's error code."""
        words = handler.headers.get("Authorization", "").split(" ", 1)
        if words[0] != "AWS4-HMAC-SHA256" or len(words) < 2:
            return "AccessDenied"
        part = dict(w.strip().split("=", 1) for w in words[1].split(","))
        key, scope = part["Credential"].split("/", 1)
        headers = {k.lower(): v for k, v in handler.headers.items()}
        names = part["SignedHeaders"].split(";")
        if key not in self.known:
            return "InvalidAccessKeyId"
        secret, token, end = self.known[key]
        wanted = {"host", "x-amz-date"} | ({"x-amz-content-sha256"} if service == "s3" else {"content-type"})
        if token:
            wanted.add("x-amz-security-token")
        if not wanted <= set(names) or names != sorted(names) or headers.get("x-amz-security-token") != token:
            return "SignatureDoesNotMatch"
        stamp = headers["x-amz-date"]
        age = time.time() - time.mktime(time.strptime(stamp, "%Y%m%dT%H%M%SZ")) + time.timezone
        right = scope == "%s/%s/%s/aws4_request" % (stamp[:8], REGION, service) and abs(age) < 900 and hmac.compare_digest(
            part["Signature"], signature(secret, handler.command, path, headers, names, stamp, scope, digest))
        if not right:
            return "SignatureDoesNotMatch"
        return "ExpiredToken" if time.time() >= end else None

    def machine(self, handler, path):
        """(status, text)"""
        if path == "/latest/api/token":
            right = handler.command == "PUT" and handler.headers.get("X-aws-ec2-metadata-token-ttl-seconds") == "21600"
            return (200, MACHINE_TOKEN) if right else (400, "")
        if handler.headers.get("X-aws-ec2-metadata-token") != MACHINE_TOKEN:
            return 401, ""
        if path == "/latest/meta-data/iam/security-credentials/":
            return 200, "machine-role"
        if path == "/latest/meta-data/iam/security-credentials/machine-role":
            key, secret, token, end = self.issue()
            return 200, json.dumps({"Code": "Success", "LastUpdated": end, "Type": "AWS-HMAC", "AccessKeyId": key,
                                    "SecretAccessKey": secret, "Token": token, "Expiration": end})
        return (200, REGION) if path == "/latest/meta-data/placement/region" else (404, "")

    def container(self, handler):
        if handler.headers.get("Authorization") != CONTAINER_TOKEN:
            return 403, json.dumps({"code": "AccessDeniedException", "message": "Invalid token."})
        key, secret, token, end = self.issue()
        return 200, json.dumps({"RoleArn": ROLES[0], "AccessKeyId": key, "SecretAccessKey": secret, "Token": token,
                                "Expiration": end})

    def sts(self, handler, path):
        form = dict(urllib.parse.parse_qsl(handler.form.decode()))
        refused = lambda status, code, why: (status, SESSION % ("ErrorResponse", code, why, "ErrorResponse"))
        if form.get("Version") != "2011-06-15" or not form.get("RoleSessionName"):
            return refused(400, "ValidationError", "1 validation error")
        if form["Action"] == "AssumeRoleWithWebIdentity":
            if "Authorization" in handler.headers or form["WebIdentityToken"] != WEB_TOKEN:
                return refused(400, "InvalidIdentityToken", "No OpenIDConnect provider found")
        else:
            code = self.refusal(handler, path, "sts", hashlib.sha256(handler.form).hexdigest())
            if code:
                return refused(403, code, "The request signature does not match.\nsecret things follow")
        if form["RoleArn"] not in ROLES or form.get("ExternalId", "door") != "door":
            return refused(403, "AccessDenied", "Not authorized to perform sts:AssumeRole")
        key, secret, token, end = self.issue()
        return 200, ("<%sResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\n <%sResult>\n  <Credentials>\n"
                     "   <SessionToken>%s</SessionToken>\n   <SecretAccessKey>%s</SecretAccessKey>\n   <Expiration>%s"
                     "</Expiration>\n   <AccessKeyId>%s</AccessKeyId>\n  </Credentials></%sResult></%sResponse>" % (
                         form["Action"], form["Action"], token.replace("+", "&#43;"), secret, end, key, form["Action"],
                         form["Action"]))

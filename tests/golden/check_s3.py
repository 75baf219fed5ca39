"""Do we use the credentials that AWS's own library uses, and does another S3 implementation accept our requests?

    $(tests/golden/venv.sh s3) tests/golden/check_s3.py build/bin

moto (its S3, IAM and STS, with authentication on: botocore's own signer checks every signature, session token and
policy) serves shards that boto3 uploaded. A stand-in serves container and instance metadata, with credentials of roles
from moto's STS.

1. The bytes: `mode inspect` and `mode captions` of s3:// give the same results as for the files, with a user's
   credentials, with a session's, with roles obtained in each way, with object names of every kind and a multipart object;
   a training that fetches its pictures one by one, with credentials that expire after seconds, gives the same model.
   What may not be read is exit 77.
2. The order: for every subset of credential sources, our requests are signed with the key of the source that botocore
   chooses. Where botocore fails, or would need a person, so do we.

Exit 1 when anything differs."""
import glob
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

os.environ.update(AWS_DEFAULT_REGION="eu-west-1", AWS_REGION="eu-west-1", AWS_EC2_METADATA_DISABLED="true")

import boto3
import botocore.exceptions
import botocore.session
from botocore.config import Config
from moto import settings
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.authorization import ActionAuthenticatorMixin
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.sts.models import sts_backends
from werkzeug.serving import make_server

BIN = os.path.abspath(sys.argv[1])
ROLE = f"arn:aws:iam::{DEFAULT_ACCOUNT_ID}:role/"
WEB_TOKEN, CONTAINER_TOKEN, MACHINE_TOKEN = "web.token/of=test", "container token", "machine-token"
failures = []


def say(good, text):
    if not good:
        failures.append(text)
    print(("ok    " if good else "FAIL  ") + text, flush=True)


class Front:
    """moto, and what it lacks: instance and container metadata, unsigned requests to STS, credentials that expire."""

    def __init__(self):
        self.moto = DomainDispatcherApplication(create_backend_app)
        self.lock, self.asked, self.end, self.life = threading.Lock(), [], {}, 3600

    def take(self, role):
        """Credentials from moto's STS, where they never expire."""
        with self.lock:
            given = sts_backends[DEFAULT_ACCOUNT_ID]["aws"].assume_role(
                region_name="eu-west-1", role_session_name="front", role_arn=ROLE + role, policy=None, duration=3600, external_id=None)
            end = int(time.time() + self.life)
            self.end[given.access_key_id] = end
        return given, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(end))

    def json(self, role, token="Token"):
        given, end = self.take(role)
        return json.dumps({"Code": "Success", "Version": 1, "AccessKeyId": given.access_key_id, "SecretAccessKey": given.secret_access_key,
                           token: given.session_token, "Expiration": end})

    def own(self, path, environ):
        if path == "/container":
            return self.json("container") if environ.get("HTTP_AUTHORIZATION") == CONTAINER_TOKEN else None
        if path == "/process":
            return self.json("process", "SessionToken")
        if path == "/latest/api/token":
            return MACHINE_TOKEN if environ["REQUEST_METHOD"] == "PUT" else None
        if path.startswith("/latest/") and environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != MACHINE_TOKEN:
            return None
        if path == "/latest/meta-data/placement/region":
            return "eu-west-1"
        return self.json("machine") if path.endswith("/machine") else "machine"

    def web_identity(self, environ):
        form = dict(urllib.parse.parse_qsl(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])).decode()))
        if form["Action"] != "AssumeRoleWithWebIdentity" or form["WebIdentityToken"] != WEB_TOKEN:
            return None
        given, end = self.take(form["RoleArn"].removeprefix(ROLE))
        return ("<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult>"
                "<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken>"
                "<Expiration>%s</Expiration></Credentials></AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>1</RequestId>"
                "</ResponseMetadata></AssumeRoleWithWebIdentityResponse>" % (
                    given.access_key_id, given.secret_access_key, given.session_token, end))

    def __call__(self, environ, start):
        path, signed = environ["PATH_INFO"], environ.get("HTTP_AUTHORIZATION", "")
        key = re.search(r"Credential=([^/]+)/", signed)
        text = ""
        if path.startswith(("/latest/", "/container", "/process")):
            text = self.own(path, environ)
        elif environ["REQUEST_METHOD"] == "POST" and not signed:
            text = self.web_identity(environ)
        elif key and time.time() >= self.end.get(key[1], time.time() + 1):
            text = "<Error><Code>ExpiredToken</Code></Error>"
            start("400 Bad Request", [("Content-Length", str(len(text)))])
            return [text.encode()]
        elif not signed and not path.startswith("/moto-api"):
            text = None
        else:
            if key and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
                self.asked.append(key[1])
            return self.moto(environ, start)
        start("200 OK" if text is not None else "403 Forbidden", [("Content-Length", str(len(text or "")))])
        return [(text or "").encode()]


class Quiet(MotoRequestHandler):
    def log(self, *args, **kwargs):
        pass


front = Front()
server = make_server("127.0.0.1", 0, front, True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
AT = f"http://127.0.0.1:{server.server_port}"


def authentication(on):
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0 if on else float("inf")
    ActionAuthenticatorMixin.request_count = 0


def client(name, **keys):
    return boto3.client(name, endpoint_url=AT, region_name="eu-west-1", config=Config(s3={"addressing_style": "path"}),
                        **(keys or {"aws_access_key_id": "AKIASETUP", "aws_secret_access_key": "setup"}))


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": [
        {"Effect": "Allow", "Action": a, "Resource": r} for a, r in statements]})


def set_up(work):
    """Users, roles, a bucket, shards. NAME -> (id, secret) of users."""
    iam, s3, users = client("iam"), client("s3"), {}
    may_read = policy(("s3:*", ["arn:aws:s3:::data", "arn:aws:s3:::data/*"]), ("sts:AssumeRole", "*"))
    for name in "environment", "credentials", "config", "stranger":
        iam.create_user(UserName=name)
        key = iam.create_access_key(UserName=name)["AccessKey"]
        users[name] = key["AccessKeyId"], key["SecretAccessKey"]
        if name != "stranger":
            iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=may_read)
    trust = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]})
    for name in "role", "chained", "web", "process", "container", "machine":
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)
        iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=may_read)
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    for i, path in enumerate(sorted(glob.glob(f"{work}/near/*.tar"))):
        with open(path, "rb") as f:
            s3.put_object(Bucket="data", Key=f"d/{os.path.basename(path)}", Body=f.read())
    return users


ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "HF_", "MODE_SHARD"))}


def mode(work, given, *args, keep=False):
    """Runs a verb with these environment variables: exit code, output."""
    if not keep:
        shutil.rmtree(f"{work}/cache", ignore_errors=True)
    env = {**ENVIRONMENT, "HOME": work, "MODE_CACHE": f"{work}/cache", "no_proxy": "127.0.0.1", "AWS_REGION": "eu-west-1",
           "AWS_ENDPOINT_URL": AT, "AWS_EC2_METADATA_DISABLED": "true", **given}
    front.asked.clear()
    p = subprocess.run([f"{BIN}/mode", *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return p.returncode, p.stdout + p.stderr


def keys(pair, token=None):
    return {"AWS_ACCESS_KEY_ID": pair[0], "AWS_SECRET_ACCESS_KEY": pair[1], **({"AWS_SESSION_TOKEN": token} if token else {})}


def put(work, name, text):
    os.makedirs(f"{work}/.aws", exist_ok=True)
    with open(f"{work}/{name}", "w") as f:
        f.write(text)


def ways(work, users):
    """What each source needs: (variables, lines of credentials, lines of config)."""
    ask = f"{sys.executable} -c 'import urllib.request as r; print(r.build_opener(r.ProxyHandler({{}})).open(\"{AT}/process\").read().decode())'"
    pair = "aws_access_key_id = %s\naws_secret_access_key = %s\n"
    return {
        "environment": (keys(users["environment"]), "", ""),
        "role": ({}, "", f"role_arn = {ROLE}role\nsource_profile = base\n"),
        "web": ({"AWS_WEB_IDENTITY_TOKEN_FILE": f"{work}/web.token", "AWS_ROLE_ARN": ROLE + "web", "AWS_ROLE_SESSION_NAME": "session"}, "", ""),
        "credentials": ({}, pair % users["credentials"], ""),
        "process": ({}, "", f"credential_process = {ask}\n"),
        "config": ({}, "", pair % users["config"]),
        "container": ({"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{AT}/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN": CONTAINER_TOKEN}, "", ""),
        "machine": ({"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": AT}, "", ""),
    }


def use(work, users, names, extra=""):
    """Writes the files; returns the environment variables."""
    given, credentials, config = {}, "[default]\n", "[default]\n"
    for name in names:
        variables, a, b = ways(work, users)[name]
        given.update(variables)
        credentials += a
        config += b
    base = "[base]\naws_access_key_id = %s\naws_secret_access_key = %s\n" % users["credentials"]
    put(work, ".aws/credentials", base + (credentials if credentials != "[default]\n" else ""))
    put(work, ".aws/config", config + extra if config != "[default]\n" or extra else "")
    put(work, "web.token", WEB_TOKEN)
    return given


def whose(key, users):
    for name, pair in users.items():
        if pair[0] == key:
            return name
    for role in sts_backends[DEFAULT_ACCOUNT_ID]["aws"].assumed_roles:
        if role.access_key_id == key:
            return role.role_arn.split("/")[-1]
    return key


def botocores_choice(work, given):
    """The source whose key botocore uses; None: it finds none; or the name of its exception."""
    saved = dict(os.environ)
    for k in [k for k in os.environ if k.startswith("AWS_")]:
        del os.environ[k]
    os.environ.update({"HOME": work, "AWS_DEFAULT_REGION": "eu-west-1", "AWS_ENDPOINT_URL": AT, "no_proxy": "127.0.0.1",
                       "AWS_EC2_METADATA_DISABLED": "true", **given})
    try:
        found = botocore.session.Session().get_credentials()
        return found.get_frozen_credentials().access_key if found else None
    except (botocore.exceptions.BotoCoreError, OSError) as e:
        return type(e).__name__
    finally:
        os.environ.clear()
        os.environ.update(saved)


# ------------------------------------------------------------------------------------------------ 1. the bytes


def same_captions(work, given, source, what):
    shutil.rmtree(f"{work}/out", ignore_errors=True)
    code, text = mode(work, given, "captions", source, "--out", f"{work}/out", "--text-keys", "json:texts[]")
    good = code == 0
    for near in glob.glob(f"{work}/near-captions/*.captions.bin"):
        far = f"{work}/out/{os.path.basename(near)}"
        good = good and os.path.exists(far) and open(near, "rb").read() == open(far, "rb").read()
    say(good, f"captions: {what}" + ("" if good else f": exit {code}: {text}"))


def check_bytes(work, users):
    shards = sorted(glob.glob(f"{work}/near/*.tar"))
    source = "s3://data/d/{00000..%05d}.tar" % (len(shards) - 1)
    code, near = mode(work, {}, "inspect", shards[0], "--text-keys", "json:texts[]")
    for name in ways(work, users):
        given = use(work, users, [name])
        code, far = mode(work, given, "inspect", "s3://data/d/00000.tar", "--text-keys", "json:texts[]")
        good = code == 0 and far.split("\n")[1:] == near.split("\n")[1:] and set(whose(k, users) for k in front.asked) == {name}
        say(good, f"inspect: by {name}" + ("" if good else f": exit {code}: {far}, asked by {[whose(k, users) for k in front.asked]}"))
        same_captions(work, given, source, f"{len(shards)} shards, by {name}")
    given = use(work, users, [])
    session = client("sts", aws_access_key_id=users["environment"][0], aws_secret_access_key=users["environment"][1]).assume_role(
        RoleArn=ROLE + "role", RoleSessionName="session")["Credentials"]
    of_session = keys((session["AccessKeyId"], session["SecretAccessKey"]), session["SessionToken"])
    same_captions(work, {**given, **of_session}, source, "a session's token in the environment")
    given = use(work, users, [], f"[profile b]\nrole_arn = {ROLE}chained\nsource_profile = a\nexternal_id = door\n"
                                 f"[profile a]\nrole_arn = {ROLE}role\nsource_profile = base\n")
    same_captions(work, {**given, "AWS_PROFILE": "b"}, source, "a role that is taken by a role")

    # what may not be read
    for what, given, want in (
            ("a stranger", keys(users["stranger"]), "AccessDenied"),
            ("a wrong secret", keys((users["environment"][0], "wrong")), "SignatureDoesNotMatch"),
            ("a key of nobody", keys(("AKIANOBODY", "x")), "InvalidAccessKeyId"),
            ("another session's token", {**of_session, "AWS_SESSION_TOKEN": "x"}, "InvalidToken"),
            ("no key", {}, "AWS_EC2_METADATA_DISABLED")):
        use(work, users, [])
        code, text = mode(work, given, "inspect", "s3://data/d/00000.tar")
        say(code == 77 and want in text and text.count("\n") == 1, f"refused: {what}: exit {code}: {text.strip()}")

    # names, and an object of several parts: its ETag is no MD5
    authentication(False)
    s3 = client("s3")
    with open(shards[0], "rb") as f:
        body = f.read()
    names = ["a b+c&d=e~f.tar", "deep/er//two slashes.tar", "é/ü%20 (1)'!.tar", "plain@:,;$.tar"]
    for name in names:
        s3.put_object(Bucket="data", Key=name, Body=body)
    parts, upload = [], s3.create_multipart_upload(Bucket="data", Key="parts.tar")["UploadId"]
    pieces = [body + b"\0" * (5 * 1024 * 1024), b"\0" * 10240]
    for i, piece in enumerate(pieces, 1):
        parts.append({"PartNumber": i, "ETag": s3.upload_part(Bucket="data", Key="parts.tar", PartNumber=i, UploadId=upload, Body=piece)["ETag"]})
    s3.complete_multipart_upload(Bucket="data", Key="parts.tar", UploadId=upload, MultipartUpload={"Parts": parts})
    authentication(True)
    for name in names + ["parts.tar"]:
        code, far = mode(work, keys(users["environment"]), "inspect", f"s3://data/{name}", "--text-keys", "json:texts[]")
        good = code == 0 and (far.split("\n")[2:] == near.split("\n")[2:] or name == "parts.tar")
        say(good, f"inspect: s3://data/{name}" + ("" if good else f": exit {code}: {far[:300]}"))


def check_training(work, users):
    """Fetches pictures one by one, for longer than a key is valid."""
    merges = os.environ.get("MODE_CLIP_MERGES", "")
    if not os.path.exists(merges):
        print("left out: a training (MODE_CLIP_MERGES names no file)")
        return
    put(work, "model.json", json.dumps({
        "embed_dim": 16, "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "head_width": 16},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1}}))
    shards = sorted(glob.glob(f"{work}/near/*.tar"))

    def train(given, data, out):
        return mode(work, given, "train", "--config", f"{work}/model.json", "--clip-merges", merges, "--data", data, "--out",
                    f"{work}/{out}", "--text-keys", "json:texts[]", "--batch", "16", "--steps", "200", "--backend", "cpu", "--threads", "2")

    code, text = train({}, f"{work}/near", "m-near")
    say(code == 0, "train: files" + ("" if code == 0 else f": {text}"))
    front.life = 2
    given = use(work, users, ["container"])
    given["MODE_SHARD_CACHE_BYTES"] = str(os.path.getsize(shards[0]) * 5 // 2)
    begun = time.time()
    code, text = train(given, "s3://data/d/{00000..%05d}.tar" % (len(shards) - 1), "m-far")
    front.life = 3600
    same = code == 0 and open(f"{work}/m-near/open_clip_model.safetensors", "rb").read() == open(
        f"{work}/m-far/open_clip_model.safetensors", "rb").read()
    n = len(set(front.asked))
    say(same and n >= 3, f"train: the same model, by {n} keys that lived 2 s each, in {time.time() - begun:.0f} s, {len(front.asked)} "
        "requests" + ("" if same else f": exit {code}: {text}"))


# ------------------------------------------------------------------------------------------------ 2. the order


def check_order(work, users):
    names = list(ways(work, users))
    n, wrong = 0, 0
    for count in range(len(names) + 1):
        for some in itertools.combinations(names, count):
            given = use(work, users, some)
            theirs = whose(botocores_choice(work, given), users)
            code, text = mode(work, given, "inspect", "s3://data/d/00000.tar")
            ours = {whose(k, users) for k in front.asked}
            good = code == 0 and ours == {theirs} if theirs else code == 77 and not ours
            n += 1
            if not good:
                wrong += 1
                say(False, f"order: {' '.join(some) or 'nothing'}: botocore takes {theirs}, we {ours}: exit {code}: {text.strip()[:300]}")
    say(not wrong, f"order: {n} sets of {len(names)} sources, {n - wrong} as botocore chooses")

    # profiles that are wrong, or need a person: botocore fails, and so do we, though other sources follow in the chain
    after = "container", "machine"
    pair = "aws_access_key_id = %s\naws_secret_access_key = %s\n" % users["config"]
    for what, profile in (
            ("source_profile that is not there", f"role_arn = {ROLE}role\nsource_profile = none\n"),
            ("role_arn alone", f"role_arn = {ROLE}role\n"),
            ("both source_profile and credential_source", f"role_arn = {ROLE}role\nsource_profile = base\ncredential_source = Environment\n"),
            ("an unknown credential_source", f"role_arn = {ROLE}role\ncredential_source = Other\n"),
            ("credential_source without keys", f"role_arn = {ROLE}role\ncredential_source = Environment\n"),
            ("a chain that comes back", f"role_arn = {ROLE}role\nsource_profile = q\n[profile q]\nrole_arn = {ROLE}role\nsource_profile = p\n"),
            ("half a key", "aws_access_key_id = x\n"),
            ("a web identity without a role", f"web_identity_token_file = {work}/web.token\n"),
            ("a web identity of no file", f"role_arn = {ROLE}web\nweb_identity_token_file = {work}/none\n"),
            ("a process that fails", "credential_process = false\n"),
            ("a process without Version", "credential_process = echo {}\n"),
            ("a process that is not there", "credential_process = /nowhere/x\n"),
            ("SSO", "sso_start_url = https://x\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n"),
            ("SSO beside keys", pair + "sso_start_url = https://x\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n"),
            ("an SSO session", "sso_session = s\nsso_account_id = 1\nsso_role_name = r\n[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://x\n")):
        given = {**use(work, users, after, f"[profile p]\n{profile}"), "AWS_PROFILE": "p"}
        theirs = botocores_choice(work, given)
        code, text = mode(work, given, "inspect", "s3://data/d/00000.tar")
        refused = code in (65, 77, 78) and not front.asked and text.count("\n") == 1
        say(refused and theirs and not theirs.startswith(("AKIA", "ASIA")), f"refused: {what}: botocore {theirs}; exit {code}: {text.strip()}")


def main():
    work = tempfile.mkdtemp(prefix="mode-s3-")
    try:
        subprocess.run([f"{BIN}/mode-test-corpus", f"{work}/c", "160", "40"], check=True, stdout=subprocess.DEVNULL)
        os.mkdir(f"{work}/near")
        for i, path in enumerate(sorted(glob.glob(f"{work}/c/train/*/*.tar"))):
            shutil.copy(path, f"{work}/near/{i:05d}.tar")
        authentication(False)
        users = set_up(work)
        authentication(True)
        code, text = mode(work, {}, "captions", f"{work}/near", "--out", f"{work}/near-captions", "--text-keys", "json:texts[]")
        say(code == 0, "captions: files" + ("" if code == 0 else f": {text}"))
        check_bytes(work, users)
        check_training(work, users)
        check_order(work, users)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


sys.exit(main())

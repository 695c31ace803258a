"""A real S3 server on the loopback, in a process of its own, and its buckets.

::

    with ObjectServer() as server:
        bucket = server.new_bucket()
        bucket.url        # s3://b1/data
        bucket.environ    # what a client finds in its environment: endpoint, key, secret
        bucket.keys()     # what is there, read by boto3
        server.stop()     # connections are refused; the objects stay
        server.start()
        server.freeze()   # connections are accepted, nothing is answered
        server.thaw()

What a slow or broken network does is in `object_proxy`.
"""

import dataclasses
import functools
import itertools
import os
import posixpath
import signal
import subprocess
import sys
import warnings
from pathlib import Path

ACCESS_KEY = "WKDASKTESTKEY0001"
SECRET = "wkdask-secret-that-must-be-in-no-file"
"""What tests look for in files, logs, reprs and pickles: it must be found nowhere."""
REGION = "us-east-1"


@dataclasses.dataclass(frozen=True)
class Bucket:
    """A bucket of a server, and the prefix in it that a test may use."""

    name: str
    server: "ObjectServer"
    endpoint: str
    """``http://127.0.0.1:port`` of the server, or of a proxy before it."""
    prefix: str = "data"
    proxy: object = None
    """The `ObjectProxy` of which the endpoint is; None where there is none."""

    @property
    def url(self):
        """Return the address of the prefix."""
        return f"s3://{self.name}/{self.prefix}"

    @property
    def environ(self):
        """Return the variables in which a client finds the endpoint and the credentials."""
        return environ_of(self.endpoint)

    def keys(self):
        """Return the size of each object by its key relative to the prefix, whoever put it: ``../k`` is outside."""
        pages = self.server.boto3.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        found = [entry for page in pages for entry in page.get("Contents", ())]
        return {posixpath.relpath(entry["Key"], self.prefix): entry["Size"] for entry in found}

    def read(self, key):
        """Return an object's bytes, by its key relative to the prefix."""
        answer = self.server.boto3.get_object(Bucket=self.name, Key=f"{self.prefix}/{key}")
        return answer["Body"].read()

    def write(self, key, data):
        """Put an object, by its key relative to the prefix; return its ETag, quotes included."""
        return self.server.boto3.put_object(Bucket=self.name, Key=f"{self.prefix}/{key}", Body=data)["ETag"]

    def remove(self, key):
        """Remove an object, by its key relative to the prefix."""
        self.server.boto3.delete_object(Bucket=self.name, Key=f"{self.prefix}/{key}")

    def unfinished_uploads(self):
        """Return the keys of multipart uploads that were neither completed nor aborted."""
        answer = self.server.boto3.list_multipart_uploads(Bucket=self.name)
        return sorted(posixpath.relpath(entry["Key"], self.prefix) for entry in answer.get("Uploads", ()))


def environ_of(endpoint):
    """Return the variables in which a client finds an endpoint and the credentials for it."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ALLOW_HTTP": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",  # where the machine has a proxy for the rest of the world
        "no_proxy": "127.0.0.1",
    }


def set_environ(monkeypatch, bucket):
    """Give this process, and those that it starts, the credentials of a bucket and no others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in bucket.environ.items():
        monkeypatch.setenv(name, value)


class ObjectServer:
    """moto's S3 server in a process of its own; used in a ``with`` statement.

    One request is answered at a time, so that of two conditional puts one is refused, as S3 does.

    Parameters
    ----------
    delay
        Seconds that each request waits before it is answered; requests wait side by side.
    """

    def __init__(self, delay=0.0):
        self._numbers = itertools.count(1)
        process = Path(__file__).with_name("s3_process.py")
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(process), str(delay), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
        )
        self.pid = self._process.pid
        port = self._process.stdout.readline().strip()
        if not port:
            self.__exit__()
            raise RuntimeError("the S3 server did not start; what it printed is above")
        self.port = int(port)
        self.endpoint = f"http://127.0.0.1:{self.port}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self._process.poll() is None:
            self.thaw()
        self._process.stdin.close()  # at which it ends
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    @functools.cached_property
    def boto3(self):
        """A client that shares no code with the package, straight to the server."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of versions of Python that boto3 will not support for ever
            import boto3
            import botocore.config

            return boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                region_name=REGION,
                aws_access_key_id=ACCESS_KEY,
                aws_secret_access_key=SECRET,
                config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"max_attempts": 0}),
            )

    def new_bucket(self, proxy=None):
        """Make an empty bucket; clients of it go through a proxy if one is given."""
        name = f"bucket{next(self._numbers)}"
        self.boto3.create_bucket(Bucket=name)
        return Bucket(name, self, proxy.endpoint if proxy else self.endpoint, proxy=proxy)

    def stop(self):
        """Refuse connections, and close those that there are; the objects stay."""
        self._order("refuse")

    def start(self):
        """Accept connections again, on the same port."""
        self._order("accept")

    def freeze(self):
        """Stop the process: connections are accepted by the kernel, and nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        """Let a stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def _order(self, command):
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if answer != "done":
            raise RuntimeError(f"the S3 server did not {command}; what it printed is above")

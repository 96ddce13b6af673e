"""A real S3 server in a process of its own, for tests of datasets and sources on object stores."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from s3fs import S3FileSystem


@contextmanager
def s3_server(bucket: str) -> Iterator[str]:
    """Within it the environment leads to a server that holds ``bucket``; yields its URL, ``s3://BUCKET``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-c", "from moto.server import main; main()", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        try:
            while server.poll() is None:
                try:
                    urllib.request.urlopen(urllib.request.Request(f"{url}/{bucket}", method="PUT"))
                    break
                except urllib.error.URLError:
                    time.sleep(0.05)
            # Otherwise s3fs would still ask the server of an earlier test.
            S3FileSystem.clear_instance_cache()
            yield f"s3://{bucket}"
        finally:
            server.terminate()
            server.wait()

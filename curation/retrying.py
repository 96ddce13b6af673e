"""Calls to a store that may fail for a moment are tried again, and what they fail with is told with its cause."""

from __future__ import annotations

import random
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from dailies.curation.addresses import scrub
from dailies.curation.errors import DailiesError

T = TypeVar("T")

ATTEMPTS = 6
FIRST_PAUSE = 0.25  # seconds before the second attempt, doubled before each further one
LENGTH = 400  # characters of an error's line, about
LONGEST = 30.0  # seconds after whose passing no further attempt begins
LASTING = (
    *(DailiesError, FileExistsError, ImportError, IsADirectoryError, MemoryError, NotADirectoryError),
    *(NotImplementedError, PermissionError, TypeError, ValueError),
)
LASTING_NAMES = frozenset({"NoCredentialsError", "PartialCredentialsError", "TableNotFoundError", "CommitFailedError"})
LASTING_WORDS = (
    *("already exists", "401 Unauthorized", "403 Forbidden", "URL scheme is not allowed"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket"),
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "NO_SUCH_BUCKET"),  # as Arrow names them
)
BUSY = frozenset({408, 425, 429})  # HTTP statuses below 500 that pass
REFUSED_WORDS = (
    *("curlCode: 6,", "curlCode: 7,"),  # Arrow: no such host, no server at its port
    *("Could not connect to the endpoint", "Cannot connect to host"),  # botocore, aiohttp
)
CREDENTIALS = "no credentials were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
DENIED = "no credentials, or they do not allow it: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or mend the name"
LOGIN = "the server wants a login or a signature: give a URL that is public or signed, or download it first"
NO_BUCKET = "create the bucket, or mend its name or AWS_ENDPOINT_URL"
NO_ANSWER = "check the network, the address and AWS_ENDPOINT_URL"
HINTS = {
    "URL scheme is not allowed": "an http:// endpoint needs AWS_ALLOW_HTTP=true",
    "169.254.169.254": CREDENTIALS,
    "Unable to locate credentials": CREDENTIALS,
    "ACCESS_DENIED": DENIED,
    "AccessDenied": DENIED,
    "NO_SUCH_BUCKET": NO_BUCKET,
    "NoSuchBucket": NO_BUCKET,
    "NETWORK_CONNECTION": NO_ANSWER,
    "Could not connect to the endpoint": NO_ANSWER,
    "Cannot connect to host": NO_ANSWER,
    "Name or service not known": NO_ANSWER,
    "Unrecognized filesystem type": "give a path, or a URL that begins with s3://, gs:// or abfs://",
    "Protocol not known": "give a path, or a URL such as s3://, gs:// or https://",
}
"""What to do about errors of stores, by words in them; the address is asked for the credentials of a cloud's machine."""


def retried(
    work: Callable[[], T],
    *,
    heartbeat: Callable[[], None] = lambda: None,
    hopeless: Callable[[Exception], bool] = lambda error: False,
) -> T:
    """Return ``work()``, tried again after a growing and random pause where it fails for a moment, whatever it raises.

    Raises its last exception after ``ATTEMPTS``, at once where another attempt would end the same (see ``lasting``)
    or where ``hopeless`` says so of the exception.
    """
    began, pause = time.monotonic(), FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return work()
        except Exception as error:
            if attempt == ATTEMPTS or lasting(error) or hopeless(error) or time.monotonic() - began > LONGEST:
                raise
        heartbeat()
        time.sleep(pause * random.uniform(0.5, 1.5))  # workers that failed together do not all come back together
        pause *= 2
    raise AssertionError("the last attempt returns or raises")


def lasting(error: Exception) -> bool:
    """Return whether ``error`` would come again: nothing is there, access is refused, or the request makes no sense."""
    chain = list(_chain(error))
    for link in chain:
        if (status := _status(link)) is not None:
            return 400 <= status < 500 and status not in BUSY
    if any(isinstance(link, LASTING) or type(link).__name__ in LASTING_NAMES for link in chain):
        return True
    if isinstance(chain[-1], FileNotFoundError):  # one that stands for a lost connection has that as its cause
        return True
    return any(word in str(link) for link in chain for word in LASTING_WORDS)


def refused(error: Exception) -> bool:
    """Return whether no server took the call. A store that was never reached is then rather misnamed than busy."""
    chain = list(_chain(error))
    if any(isinstance(link, (ConnectionRefusedError, socket.gaierror)) for link in chain):
        return True
    return any(word in str(link) for link in chain for word in REFUSED_WORDS)


STATUSES = {
    401: "a login is wanted",
    403: "access is not allowed",
    404: "there is nothing at this address",
    410: "there is nothing at this address any more",
    429: "the server is asked too often",
}


def in_words(error: BaseException) -> str | None:
    """Say why a store or server cannot be reached or delivers nothing; ``None`` where its own words must do."""
    chain = list(_chain(error))
    text = " ".join(map(str, chain))
    status = next((status for link in chain if (status := _status(link)) is not None), None)
    if status is not None:
        return STATUSES.get(status, "the server fails" if status >= 500 else None)
    if any(isinstance(link, ssl.SSLCertVerificationError) for link in chain) or "certificate verify failed" in text:
        return "its certificate is not trusted"
    if any(isinstance(link, ssl.SSLError) for link in chain):
        return "no secure connection can be made; is it an http:// address?"
    if any(isinstance(link, socket.gaierror) for link in chain) or "curlCode: 6," in text:
        return "there is no such host"
    if any(isinstance(link, ConnectionRefusedError) for link in chain) or "curlCode: 7," in text:
        return "no server answers there"
    if any(isinstance(link, TimeoutError) for link in chain):
        return "there was no answer in time"
    web = any(isinstance(link, FileNotFoundError) and re.match("https?://", str(link)) for link in chain)
    return STATUSES[404] if web else None


def cause_of(error: BaseException) -> str:
    """Say in one line what went wrong, first in words, with the causes and the HTTP status that a store's library hides."""
    phrases: list[str] = [in_short] if (in_short := in_words(error)) is not None else []
    for link in _chain(error):
        status = _status(link)
        text = re.sub(r"\x1b\[\d*m|↳", "", str(link)) or type(link).__name__
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        if status is not None and str(status) not in text:
            lines.append(f"HTTP status {status}")
        phrases += [line for line in lines if not any(line in earlier for earlier in phrases)]
    line = scrub(": ".join(phrases))  # before it is cut, since half a URL is no URL any more
    hints = dict.fromkeys(hint for mark, hint in HINTS.items() if mark in line)
    if not hints and (denied := next((link for link in _chain(error) if _status(link) in (401, 403)), None)):
        hints[DENIED if _is_answer_of_s3(denied) else LOGIN] = None
    if len(line) > LENGTH:  # the last words are often the cause
        line = f"{line[: LENGTH // 2]} … {line[-LENGTH // 2 :]}"
    return "; ".join([line, *hints])


def _chain(error: BaseException) -> Iterator[BaseException]:
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an exception of aiohttp, requests or botocore carries."""
    response = getattr(error, "response", None)
    status = getattr(error, "status", None) or getattr(response, "status_code", None)
    if status is None and isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _is_answer_of_s3(error: BaseException) -> bool:
    """Return whether it is an exception of botocore that holds the store's answer."""
    return isinstance(getattr(error, "response", None), dict)

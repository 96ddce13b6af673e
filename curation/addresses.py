"""Addresses of sources hold secrets: a password before the host, a signature in the query. Here they are taken out.

``public`` is the form of an address that is stored and shown; the whole address stays in memory, for the length of a run.
``scrub`` takes secrets out of any text: every message of ``errors``, every line that is logged or printed, and all text
that is written from data passes it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
from collections.abc import Mapping
from functools import cache
from typing import Any
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"  # stands where a secret stood
CELLS = ("parquet", "file")  # schemes of local files: whatever follows is a name of a file, or of a cell of ours
WEB = ("http", "https", "ftp", "ftps")  # in others, as s3, "?" and "#" may be part of a name
CONTAINERS = ("abfs", "abfss", "wasb", "wasbs", "az", "adl")  # what stands before their "@" is no user
LONG = 16  # characters of a value from which on it is taken for a token, whatever its name
SHORTEST = 6  # characters of an environment's secret that is looked for
_PLACE = re.compile(r"://|^\s*(?:~|\.{1,2})?/|^[^\s]*[^\s.]\.[A-Za-z][A-Za-z0-9]{1,4}$")
ENDS = ".,;:!?)]}>"  # of a sentence around a URL

# All that is printed or stored passes these, texts of strangers too: none may take time by the square of a length.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]{0,31}://[^\s'\"<>\\|`]+")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://(.*)", re.S)
_CHAIN = re.compile(r"::(?=[A-Za-z][A-Za-z0-9+.\-]*(?:://|::|$))")  # not that of an IPv6 address
_SECRET_NAME = (
    r"(?:x[-_](?:amz|goog|ms|oss|cos)[-_][\w\-]+|awsaccesskeyid|googleaccessid|key[-_]?pair[-_]?id|policy"
    r"|(?:[\w\-]*[-_])?(?:access|account|api|auth|private|secret|session|shared|storage|signing)?[-_]?"
    r"(?:token|password|passwd|passphrase|pwd|secret|sig|sign|signature|credentials?|authorization|auth|cookie|key|jwt))"
)
_NAME = re.compile(_SECRET_NAME, re.I)
_COLUMN = re.compile(  # whose values are hidden: a key alone is none of these, as many tables call a sample's name so
    r"(?:[\w\-]*[-_])?(?:(?:access|account|api|auth|private|secret|shared|storage|signing)[-_]?key"
    r"|token|password|passwd|passphrase|pwd|secret|sig|signature|credentials?|authorization|cookie|jwt)",
    re.I,
)
_PAIR = re.compile(
    rf"(?<![\w\-])({_SECRET_NAME})(['\"]?\s*=\s*|['\"]\s*:\s*(?=['\"]))"
    r"(?!VALUE\b)(\"[^\"\n]*\"|'[^'\n]*'|[^\s'\"&;,|)\]}\\]+)",
    re.I,
)
_HEADER = re.compile(
    r"((?:proxy-)?authorization|(?:set-)?cookie|(?<![\w\-])x-[\w\-]*(?:token|key|signature))(['\"]?\s*:\s*['\"]?)[^'\"\n]+",
    re.I,
)
_BEARER = re.compile(
    r"\b((?i:bearer))(\s+)(?=[\w.~+/\-]*[\d=_+/])[\w.~+/=\-]{6,}"
    r"|\b((?i:basic))(\s+)(?=[A-Za-z0-9+/]*[\d=])[A-Za-z0-9+/]{8,}={0,2}(?=$|[\s'\",])"
)
_TOKENS = re.compile(
    r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{16}|hf_[A-Za-z0-9]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|xox[abprs]-[A-Za-z0-9\-]{10,}"
    r"|sk-[A-Za-z0-9_\-]{20,})\b"
)
TOKENS = ("AKIA", "ASIA", "hf_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "xox", "sk-")  # how each of these begins
_SECRET_VARIABLE = re.compile(
    r"(?:^|_)(?:secret|token|pwd|passphrase|credential|sas|apikey|(?:access|account|api|storage|signing)_key)s?"
    r"(?:_id|_value)?$|_secret_|password|passwd",
    re.I,
)
_NO_SECRET = re.compile(r"[~.]{0,2}/|(?:true|false|\d+)$", re.I)  # a path, a switch, a number


# ---- addresses ------------------------------------------------------------------------------------------------------


def public(uri: str) -> str:
    """Return an address as it is stored and shown: without user and password, query and fragment; a local path as it is.

    Cells of Parquet keep the fragment that says which. Chained URLs (``::``) lose the secrets of each link.
    """
    if len(links := _CHAIN.split(uri)) > 1:
        return "::".join(public(link) for link in links)
    parts = _PARTS.fullmatch(uri)
    if parts is None or parts[1].lower() in CELLS:
        return uri
    scheme, rest = parts[1], _without_user(parts[1].lower(), parts[2])
    ends = [rest.find(mark) for mark in "?#" if mark in rest]
    at = min(ends, default=-1)
    if at >= 0 and (scheme.lower() in WEB or "=" in rest[at:]):
        rest = rest[:at]
    return f"{scheme}://{rest}"


def address_of(row: Mapping[str, Any]) -> str:
    """Return what a source is read by: the address that this run was given, which no table keeps, or what is stored of it."""
    return row.get("address") or str(row["uri"])


def is_queried(address: str) -> bool:
    """Return whether more than a user and password is missing in the public form: another query may lead to another file."""
    return "://" in address and len(public(address)) != len(_userless(address))


def name_of(uri: str) -> str:
    """Return what to call a source where nobody is to learn how its owner's disk is laid out: a local file's name alone."""
    for scheme in CELLS:
        if uri.startswith(f"{scheme}://"):
            return os.path.basename(uri.partition("#")[0]) + uri.partition("#")[1] + uri.partition("#")[2]
    return public(uri) if "://" in uri else os.path.basename(uri)


def _userless(address: str) -> str:
    parts = _PARTS.fullmatch(address)
    return address if parts is None else f"{parts[1]}://{_without_user(parts[1].lower(), parts[2])}"


def _without_user(scheme: str, rest: str) -> str:
    """Return what follows ``://`` without user and password, also where a password holds unescaped ``/``, ``?`` or ``#``."""
    end = re.search(r"[/?#]", rest)
    authority = rest[: end.start()] if end else rest
    tail = rest[len(authority) :]
    if "@" in authority:
        user, _, host = authority.rpartition("@")
        return f"{user}@{host}{tail}" if scheme in CONTAINERS and ":" not in user else host + tail
    if "@" in tail and re.search(r":(?!\d*$)(?![^\[]*\])", authority):  # no port, so the password goes on
        return tail.rpartition("@")[2]
    return rest


# ---- text -----------------------------------------------------------------------------------------------------------


def scrub(text: str, *addresses: str | None) -> str:
    """Return ``text`` without what may be secret: see the module. ``addresses``: whole ones that it is about."""
    if not text:
        return text
    for address in addresses:
        if address is not None and address != public(address):
            for secret in _secrets_of(address):
                text = text.replace(secret, HIDDEN)
    for value in _environment():
        text = text.replace(value, HIDDEN)
    return _scrub_words(_URL.sub(_public_match, text) if "://" in text else text)


def scrub_data(value: Any) -> Any:
    """Return JSON-able data without secrets: a manifest's columns, or what is printed for programs.

    A URL keeps those parameters of its query that are neither called like a secret nor long; a value that is called like
    one is hidden. Other values stay what they are.
    """
    if isinstance(value, dict):
        return {
            name: HIDDEN if isinstance(inner, str) and inner and _COLUMN.fullmatch(str(name)) else scrub_data(inner)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [scrub_data(inner) for inner in value]
    if not isinstance(value, str):
        return value
    for secret in _environment():
        value = value.replace(secret, HIDDEN)
    if "://" in value:
        value = _URL.sub(lambda match: _without_signature(match[0]), value)
    return _scrub_words(value)


def scrub_json(text: str | None) -> str | None:
    """Return the text of a JSON object as ``scrub_data`` leaves it; the same text where there is nothing to hide."""
    if text is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return scrub(text)
    cleaned = scrub_data(value)
    return text if cleaned == value else json.dumps(cleaned, sort_keys=True)


def without_places(text: str | None) -> str | None:
    """Return the text of a JSON object without values that say where a file lies: URLs, paths, and names of files."""
    if text is None:
        return None
    kept = {name: value for name, value in json.loads(text).items() if not _is_place(value)}
    return json.dumps(kept, sort_keys=True) if kept else None


def _is_place(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_is_place(inner) for inner in value.values())
    if isinstance(value, list):
        return any(_is_place(inner) for inner in value)
    return isinstance(value, str) and _PLACE.search(value) is not None


def _scrub_words(text: str) -> str:
    # Captions by the million pass here, and hardly any has a sign of a secret.
    if ":" in text:
        text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    if any(word in text.lower() for word in ("bearer", "basic")):
        text = _BEARER.sub(lambda match: f"{match[1] or match[3]}{match[2] or match[4]}{HIDDEN}", text)
    if "=" in text or ":" in text:
        text = _PAIR.sub(_hidden_pair, text)
    return _TOKENS.sub(HIDDEN, text) if any(mark in text for mark in TOKENS) else text


def _hidden_pair(match: re.Match[str]) -> str:
    quote = match[3][0] if match[3][0] in "'\"" else ""
    return f"{match[1]}{match[2]}{quote}{HIDDEN}{quote}"


def _public_match(match: re.Match[str]) -> str:
    url = match[0].rstrip(ENDS)
    return public(url) + match[0][len(url) :]


def _without_signature(url: str) -> str:
    """Return a URL without user and password, and without those parameters of its query or fragment that sign it."""
    parts = _PARTS.fullmatch(url)
    if parts is None or parts[1].lower() in CELLS:
        return url
    kept = re.sub(r"([?&;#])([^=&;#?]*)=([^&;#?]*)|([?&;#])([^=&;#?]{16,})", _kept, _userless(url))
    return re.sub(r"([?#])[&;]+", r"\1", kept).rstrip("?&;#")


def _kept(match: re.Match[str]) -> str:
    if match[4] is not None or _NAME.fullmatch(match[2]) or len(match[3]) >= LONG:
        mark = match[1] or match[4]
        return mark if mark in "?#" else ""
    return match[0]


def _secrets_of(address: str) -> list[str]:
    """Return what the public form of an address lacks, and each value in it that is long enough to be looked for."""
    lost = re.split(r"[?#]", address)[1:]
    parts = _PARTS.fullmatch(address)
    if parts is not None:
        shown = _without_user(parts[1].lower(), parts[2])
        user = parts[2][: len(parts[2]) - len(shown)].rstrip("@")
        lost += [user, *user.split(":", 1)[1:]]
    values = [value for part in lost for value in (part, *(pair.partition("=")[2] for pair in re.split("[&;]", part)))]
    spelled = {form for value in values for form in (value, unquote(value), quote(value, safe=""))}
    return sorted((form for form in spelled if len(form) >= SHORTEST), key=len, reverse=True)


def _environment() -> list[str]:
    """Return the values of the environment's secrets, longest first."""
    values = {value for name, value in os.environ.items() if _holds_secret(name) and len(value) >= SHORTEST}
    return sorted((value for value in values if not _NO_SECRET.match(value)), key=len, reverse=True)


@cache
def _holds_secret(variable: str) -> bool:
    return _SECRET_VARIABLE.search(variable) is not None


# ---- logs and processes ---------------------------------------------------------------------------------------------


class _Scrubbing(logging.Filter):
    """Takes secrets out of a record: its message, and the traceback that goes along."""

    def filter(self, record: logging.LogRecord) -> bool:
        try:
            record.msg, record.args = scrub(record.getMessage()), None
        except (TypeError, ValueError):  # a library's mistake, which its handler reports
            return True
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_text = record.exc_text and scrub(record.exc_text)
        record.stack_info = record.stack_info and scrub(record.stack_info)
        return True


_SCRUBBING = _Scrubbing()


def guard_logs(*names: str) -> None:
    """Let what these loggers show pass ``scrub``: their own lines, and those that their handlers and the root's show."""
    for name in ("dailies", "", *names):
        logger = logging.getLogger(name)
        for holder in (logger, *logger.handlers):
            holder.addFilter(_SCRUBBING)
    if logging.lastResort is not None:  # shows what nobody has a handler for, libraries' lines among them
        logging.lastResort.addFilter(_SCRUBBING)


guard_logs()


def hide_arguments() -> None:
    """Overwrite the secrets among this process's own arguments, which any user of the machine can list (Linux)."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            line = file.read()
        with open("/proc/self/stat", encoding="utf-8") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return  # another system, where they cannot be reached
    start = int(fields[45])  # arg_start, the 48th of all
    for argument in line.split(b"\0"):
        text = os.fsdecode(argument)
        shown = scrub(text)
        if shown != text and start:
            ctypes.memmove(start, os.fsencode(shown)[: len(argument)].ljust(len(argument), b"*"), len(argument))
        start += len(argument) + 1


def is_here(url: str) -> bool:
    """Return whether a URL is of this machine."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None

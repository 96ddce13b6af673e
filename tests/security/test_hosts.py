"""A URL leads to hosts of the open internet alone, however it is spelled and wherever it is sent on to."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dailies.curation import video
from dailies.curation.errors import Refused, Unreadable
from dailies.curation.policy import SourcePolicy, opening_by
from dailies.curation.video import hosts
from tests.rendered_video import render
from tests.security.web import Web, serving


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    render(path, count=10)
    return path.read_bytes()


@pytest.fixture
def inner(film: bytes) -> Iterator[Web]:
    """What no manifest should reach."""
    with serving(film) as web:
        yield web


@pytest.fixture
def outer(film: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A server that stands for one of the open internet."""
    public = hosts.is_public
    monkeypatch.setattr(hosts, "is_public", lambda address: address == "127.0.0.2" or public(address))
    with serving(film, "127.0.0.2") as web:
        yield web


@pytest.mark.parametrize(
    "address",
    """127.0.0.1 127.8.9.1 0.0.0.0 10.0.0.1 172.16.3.4 192.168.0.1 169.254.169.254 100.64.0.1 100.100.100.200 192.0.0.192
    168.63.129.16 224.0.0.1 240.0.0.1 255.255.255.255 198.18.0.1 :: ::1 ::ffff:127.0.0.1 ::ffff:a9fe:a9fe ::127.0.0.1
    fe80::1 fe80::1%eth0 fec0::1 fd00:ec2::254 ff02::1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:7f00:1::1
    2002:c0a8:1::1 2001:0:7f00:1::1""".split(),
)
def test_an_address_that_is_not_public(address: str) -> None:
    assert not hosts.is_public(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "64:ff9b::808:808"])
def test_an_address_that_is_public(address: str) -> None:
    assert hosts.is_public(address)


SPELLINGS = [
    *(
        "http://127.0.0.1:{}/a.mp4",
        "HTTP://127.0.0.1:{}/a.mp4",
        "http://localhost:{}/a.mp4",
        "http://LOCALHOST:{}/a.mp4",
    ),
    *(
        "http://localhost.:{}/a.mp4",
        "http://0.0.0.0:{}/a.mp4",
        "http://2130706433:{}/a.mp4",
        "http://0x7f000001:{}/a.mp4",
    ),
    *("http://017700000001:{}/a.mp4", "http://127.1:{}/a.mp4", "http://0x7f.1:{}/a.mp4", "http://0:{}/a.mp4"),
    *("http://[::ffff:127.0.0.1]:{}/a.mp4", "http://[::ffff:7f00:1]:{}/a.mp4", "http://[::1]:{}/a.mp4"),
    *("http://good.com@127.0.0.1:{}/a.mp4", "http://good.com:80@127.0.0.1:{}/a.mp4", "http://a\\@127.0.0.1:{}/a.mp4"),
    *("http://127.0.0.1:{}#@good.com/a.mp4", "http://127.0.0.1:{}?@good.com/a.mp4", "http://127。0。0。1:{}/a.mp4"),
    *("http://①②⑦.⓪.⓪.①:{}/a.mp4", "http://127%2e0%2e0%2e1:{}/a.mp4", "http:///127.0.0.1:{}/a.mp4"),
    *("http://127.0.0.1:{}\r\nHost: good.com/a.mp4", "http://127.0.0.1:{}/a.mp4::http://good.com/"),
    *("simplecache::http://127.0.0.1:{}/a.mp4", "zip://a.mp4::http://127.0.0.1:{}/a.zip", "ftp://127.0.0.1:{}/a.mp4"),
    *("filecache::http://127.0.0.1:{}/a.mp4", "webdav://127.0.0.1:{}/a.mp4", "sftp://127.0.0.1:{}/a.mp4"),
    *("reference://::http://127.0.0.1:{}/a.mp4", "smb://127.0.0.1:{}/a.mp4", "webhdfs://127.0.0.1:{}/a.mp4"),
]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_of_this_machine_is_not_asked(inner: Web, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dailies.curation.retrying.ATTEMPTS", 1)  # some are no hosts at all
    url = spelling.format(inner.url.rpartition(":")[2])
    for read in (video.content_id, video.size_of, video.probe):
        with pytest.raises(Unreadable) as caught:
            read(url)
        assert "\n" not in str(caught.value)
    assert inner.asked == []


def test_refused_says_what_lets_it_be(inner: Web) -> None:
    with pytest.raises(Refused, match=r"^127\.0\.0\.1 is no public address; --allow-private-hosts lets it be opened$"):
        video.content_id(f"{inner.url}/a.mp4")
    with opening_by(SourcePolicy(private_hosts=True)):
        assert video.content_id(f"{inner.url}/a.mp4")[1] == len(inner.data)
        assert video.probe(f"{inner.url}/a.mp4").width == 192


@pytest.mark.parametrize("late", [False, True], ids=["at once", "after HEAD"])
@pytest.mark.parametrize("read", [video.content_id, video.probe])
def test_a_redirect_to_this_machine_is_not_followed(inner: Web, outer: Web, late: bool, read: Any) -> None:
    assert read(f"{outer.url}/fine.mp4")
    outer.leads, outer.late = {"/a.mp4": f"{inner.url}/secret", "/b.mp4": f"{outer.url}/a.mp4"}, late
    for name in ("a.mp4", "b.mp4"):
        with pytest.raises(Refused, match=r"127\.0\.0\.1 is no public address"):
            read(f"{outer.url}/{name}")
    assert inner.asked == []
    with opening_by(SourcePolicy(private_hosts=True)):
        read(f"{outer.url}/a.mp4")
    assert inner.asked


@pytest.mark.parametrize(
    "place", ["file:///etc/hostname", "ftp://127.0.0.1/x", "//127.0.0.1:{}/x", "http://[::1]:{}/x"]
)
def test_a_redirect_to_another_kind_of_place_is_not_followed(
    inner: Web, outer: Web, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dailies.curation.retrying.ATTEMPTS", 1)
    outer.leads = {"/a.mp4": place.format(inner.url.rpartition(":")[2])}
    for read in (video.content_id, video.probe):
        with pytest.raises(Unreadable):
            read(f"{outer.url}/a.mp4")
    assert inner.asked == []


def test_what_the_user_names_is_read_and_leads_nowhere_else(film: bytes, inner: Web) -> None:
    with serving(film, "127.0.0.2") as other, opening_by(SourcePolicy().naming([f"{other.url}/x/y.mp4?z"])):
        assert video.content_id(f"{other.url}/a.mp4")[1] == len(film)
        other.leads = {"/b.mp4": inner.url, "/c.mp4": inner.url.replace("127.0.0.1", "127.0.0.2")}
        for url in (f"{other.url}/b.mp4", f"{other.url}/c.mp4", inner.url):
            with pytest.raises(Refused):
                video.content_id(url)
    assert inner.asked == []


def resolved(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Let names be these addresses, one answer after another, the last from then on; returns the names asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def lookup(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        if not str(host).endswith(".example"):
            return real(host, port, *rest, **options)
        answer = answers[min(len(asked), len(answers) - 1)]
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port))) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    return asked


def test_a_name_of_two_addresses_is_asked_at_the_public_one(
    inner: Web, outer: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = outer.url.rpartition(":")[2]
    for name, order in (("one", ["127.0.0.1", "127.0.0.2"]), ("two", ["127.0.0.2", "127.0.0.1"])):
        asked = resolved(monkeypatch, order)
        assert video.content_id(f"http://{name}.example:{port}/a.mp4")[1] == len(outer.data)
        assert asked
    resolved(monkeypatch, ["127.0.0.1"])
    with pytest.raises(Refused, match=r"inner\.example is 127\.0\.0\.1, which is no public address"):
        video.content_id(f"http://inner.example:{inner.url.rpartition(':')[2]}/a.mp4")
    assert inner.asked == []


def test_a_name_that_changes_its_mind_reaches_nothing(inner: Web, outer: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """First public, which a check of the name alone would believe, and private from then on."""
    asked = resolved(monkeypatch, ["127.0.0.2"], ["127.0.0.1"])
    port = inner.url.rpartition(":")[2]
    monkeypatch.setattr("dailies.curation.retrying.ATTEMPTS", 1)
    for _ in range(3):
        with pytest.raises(Unreadable):
            video.content_id(f"http://turns.example:{port}/secret")
        hosts.CheckedHTTP.clear_instance_cache()  # with what it knows of names
    assert len(asked) > 2
    assert inner.asked == []


def test_a_store_of_the_clouds_is_no_chain() -> None:
    for url in ("s3://bucket/a.mp4::file:///etc/passwd", "gs://a::http://127.0.0.1/", "s3::file:///etc/passwd://x"):
        with pytest.raises(Refused, match="chain"):
            video.content_id(url)


def test_a_policy_travels_as_text() -> None:
    policy = SourcePolicy(local=True).naming(["http://User:Pass@Host:80/a?b", "/a/path", "sftp://nas/x"])
    assert SourcePolicy.from_json(policy.to_json()) == policy
    assert policy.named == ("http://host:80", "sftp://nas")
    assert "Pass" not in policy.to_json()


def test_a_training_row_whose_source_is_elsewhere_is_not_asked(inner: Web, tmp_path: Path) -> None:
    row = {"video": None, "uri": f"{inner.url}/a.mp4", "content_id": "0" * 24}
    with pytest.raises(Refused):
        video.clip_frames(row)
    assert inner.asked == []

"""What the head of a request must be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.serve.http.head import awaits_continue, fault, origin_form

HOSTS = [
    *("", "a", "example.org", "example.org:", "example.org:8500", "192.0.2.1:1", "under_score", "a%20b", "a.", "x ", "a,b"),
    *("[::1]", "[2001:db8::1]:8500", "[::ffff:192.0.2.1]", "[fe80::1%25eth0]:1"),
]
NO_HOSTS = [
    *("a b", "a/b", "a?b", "a#b", "user@a", "a:b", "a:80:81", "a:-1", "http://a", "::1", "[::1", "::1]", "[]", "[a b]"),
    *("a%2", "a%zz", "ü", "a\tb", "a, a", ", ", "a, ", "<a>", "a\\b", '"a"', "[::1]x"),
]


@pytest.mark.parametrize("host", HOSTS)
def test_hosts(host: str) -> None:
    assert fault("1.1", {"host": host}) is None


@pytest.mark.parametrize("host", NO_HOSTS)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_what_is_no_host_or_two(host: str, version: str) -> None:
    found = fault(version, {"host": host})
    assert found is not None
    assert found[0] == 400


FAULTS: dict[str, tuple[str, dict[str, str], int | None]] = {
    "no Host": ("1.1", {}, 400),
    "no Host in HTTP/1.0": ("1.0", {}, None),
    "no Host in HTTP/0.9": ("0.9", {}, None),
    "HTTP/2": ("2.0", {"host": "a"}, 505),
    "chunks": ("1.1", {"host": "a", "transfer-encoding": "Chunked "}, None),
    "chunks in HTTP/1.0": ("1.0", {"transfer-encoding": "chunked"}, 400),
    "chunks of gzip": ("1.1", {"host": "a", "transfer-encoding": "gzip, chunked"}, 501),
    "chunks in chunks": ("1.1", {"host": "a", "transfer-encoding": "chunked, chunked"}, 501),
    "gzip of chunks": ("1.1", {"host": "a", "transfer-encoding": "chunked, gzip"}, 400),
    "gzip": ("1.1", {"host": "a", "transfer-encoding": "gzip"}, 400),
    "identity": ("1.1", {"host": "a", "transfer-encoding": "identity"}, 400),
    "an empty coding": ("1.1", {"host": "a", "transfer-encoding": "chunked,"}, 400),
    "the expectation": ("1.1", {"host": "a", "expect": "100-Continue"}, None),
    "the expectation twice": ("1.1", {"host": "a", "expect": "100-continue, 100-continue"}, None),
    "another expectation": ("1.1", {"host": "a", "expect": "magic"}, 417),
    "one expectation more": ("1.1", {"host": "a", "expect": "100-continue, magic"}, 417),
}


@pytest.mark.parametrize(("version", "headers", "status"), FAULTS.values(), ids=FAULTS)
def test_faults(version: str, headers: dict[str, str], status: int | None) -> None:
    found = fault(version, headers)
    assert (found and found[0]) == status


CONTINUES: dict[str, tuple[str, dict[str, str], bool]] = {
    "a length": ("1.1", {"expect": "100-continue", "content-length": "3"}, True),
    "chunks": ("1.1", {"expect": "100-continue", "transfer-encoding": "chunked"}, True),
    "no body": ("1.1", {"expect": "100-continue"}, False),
    "an empty body": ("1.1", {"expect": "100-continue", "content-length": "0"}, False),
    "HTTP/1.0": ("1.0", {"expect": "100-continue", "content-length": "3"}, False),
    "no expectation": ("1.1", {"content-length": "3"}, False),
}


@pytest.mark.parametrize(("version", "headers", "awaits"), CONTINUES.values(), ids=CONTINUES)
def test_who_awaits_an_invitation(version: str, headers: dict[str, str], awaits: bool) -> None:
    assert awaits_continue(version, headers) is awaits


FORMS = {
    "http://example.org/v1/services?tag=a": ("/v1/services?tag=a", "example.org"),
    "HTTPS://example.org:443/": ("/", "example.org:443"),
    "http://example.org": ("/", "example.org"),
    "http://example.org?x=/": ("/?x=/", "example.org"),
    "http://[::1]:8500/a//b": ("/a//b", "[::1]:8500"),
    "http://a/b:c@d": ("/b:c@d", "a"),
}


@pytest.mark.parametrize(("target", "expected"), FORMS.items())
def test_an_absolute_target_gives_path_and_host(target: str, expected: tuple[str, str]) -> None:
    headers = {"host": "other"}
    assert (origin_form("GET", target, headers), headers["host"]) == expected


NO_TARGETS = [
    *("", "*", "v1/services", "http:/a", "http://", "http:///a", "http://:80/", "http://?a", "ftp://a/", "xhttp://a/"),
    *("http://u@a/", "http://a b/", "http://a:b/", "http://[::1/"),
]


@pytest.mark.parametrize("target", NO_TARGETS)
def test_what_is_no_target(target: str) -> None:
    headers = {"host": "other"}
    assert origin_form("GET", target, headers) is None
    assert headers == {"host": "other"}


def test_targets_of_other_methods() -> None:
    assert origin_form("OPTIONS", "*", {}) == "*"
    assert origin_form("CONNECT", "example.org:443", {}) == "example.org:443"


@given(st.text(max_size=300))
def test_any_target_gives_a_path_or_none(target: str) -> None:
    form = origin_form("GET", f"http://{target}", {})
    assert form is None or form.startswith("/")


@given(st.sampled_from(["a", "[", "]", ":", "1", "%", "%2", ".", "-", "::"]).flatmap(lambda piece: st.just(piece * 5000)))
def test_long_hosts_are_looked_at_quickly(host: str) -> None:
    fault("1.1", {"host": host + " "})
    origin_form("GET", f"http://{host} /", {})

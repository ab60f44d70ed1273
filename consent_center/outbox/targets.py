"""Where a webhook may go, and sending: no address that its registration does not allow, no redirect.

A URL is https, or http to this machine itself. Its host is resolved once a delivery, each address is checked,
and the connection is made to the address that was checked, so that a name that changes its mind meanwhile
leads nowhere else. Link-local addresses (cloud metadata), multicast and the like are never allowed.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import urlsplit

from consent_center.errors import ConsentError

_LOCAL = ("127.0.0.1", "::1", "localhost")
CONNECT, READ = 5.0, 10.0  # seconds
_MAX_ANSWER = 4_096


def check_url(url: str) -> str:
    """ConsentError `webhook.url` unless the URL may be registered; the URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConsentError("webhook.url", f"the URL can't be read: {error}") from None
    host = parts.hostname or ""
    if not host or parts.username or parts.password or parts.fragment or len(url) > 2_000 or port == 0:
        raise ConsentError(
            "webhook.url", "a webhook's URL has a host, and neither user, password nor fragment"
        )
    if any(ord(c) <= 32 or ord(c) > 126 for c in url):
        raise ConsentError("webhook.url", "a webhook's URL is ASCII without blanks; encode the rest")
    if parts.scheme != "https" and not (parts.scheme == "http" and host in _LOCAL):
        raise ConsentError(
            "webhook.url", "a webhook's URL begins with https:// (http:// only to this machine)"
        )
    return url


def address_of(url: str, private: bool) -> str:
    """The address to connect to; ConsentError `webhook.url` if the host has one that is not allowed."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConsentError("webhook.url", f"{host} has no address: {error}") from None
    addresses = [str(entry[4][0]) for entry in found]
    for text in addresses:
        ip = ipaddress.ip_address(text.partition("%")[0])
        mapped = getattr(ip, "ipv4_mapped", None)
        ip = mapped if mapped is not None else ip
        if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
            raise ConsentError("webhook.url", f"{host} is at {text}, where no webhook may go")
        if ip.is_loopback:
            if host not in _LOCAL:
                raise ConsentError("webhook.url", f"{host} is this machine under another name")
        elif not ip.is_global and not private:
            raise ConsentError(
                "webhook.url", f"{host} is at {text}, a private network: register it with --private"
            )
    return addresses[0]


@lru_cache(maxsize=1)
def _context() -> ssl.SSLContext:
    return ssl.create_default_context()


def post(url: str, private: bool, headers: Mapping[str, str], body: bytes) -> tuple[bool, str]:
    """(whether it was accepted with 2xx, what happened). Never raises for what the receiver does."""
    try:
        status, _ = send(url, private, headers, body)
    except ConsentError as error:
        return False, error.detail
    return 200 <= status < 300, f"HTTP {status}"


def send(url: str, private: bool, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
    """(status, the answer's beginning); ConsentError `webhook.url` if there is no answer."""
    import urllib3  # a center that sends nothing does without

    address = address_of(check_url(url), private)
    parts = urlsplit(url)
    timeout = urllib3.Timeout(connect=CONNECT, read=READ)
    pool: urllib3.HTTPConnectionPool
    if parts.scheme == "https":
        host = parts.hostname or ""
        pool = urllib3.HTTPSConnectionPool(
            address, parts.port or 443, ssl_context=_context(), server_hostname=host, assert_hostname=host
        )
    else:
        pool = urllib3.HTTPConnectionPool(address, parts.port or 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        answer = pool.request(
            "POST",
            path,
            body=body,
            headers={**headers, "Host": parts.netloc},
            redirect=False,
            retries=False,
            timeout=timeout,
            preload_content=False,
        )
        try:
            content = answer.read(_MAX_ANSWER)
        finally:
            answer.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise ConsentError("webhook.url", f"no answer: {type(error).__name__}") from error
    finally:
        pool.close()
    return int(answer.status), bytes(content)

"""`chatsdk doctor` against real faults: it names the one that is there, and no other."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from chatsdk.cli.doctor import verdicts
from chatsdk.cli.doctor.findings import Verdict, exit_code, skip, warn
from chatsdk.core.errors import NotSentError, ServerError, Unauthorized
from chatsdk.devserver.process import DevServer
from tests.cli.conftest import ROOT, Ended, Shell
from tests.pipeline.kit import always, http
from tests.realtime.peers import certificate, serving

CHECKS = (
    "settings",
    "state directory",
    "plugins",
    "proxy",
    "dns",
    "tcp",
    "tls",
    "captive portal",
    "server",
    "clock",
    "token",
    "websocket",
)
OWNER, ANOTHER = 54321, 54322

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl")
is_root = sys.platform != "win32" and os.geteuid() == 0


@pytest.fixture(autouse=True)
def _alone(chatsdk: Shell, server: DevServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alice has both tokens, and no proxy or certificates of the machine's."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    chatsdk.environ["CHATSDK_WS_TOKEN"] = server.ws_tokens["alice"]
    chatsdk.canaries.append(server.ws_tokens["alice"])


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that everybody may pass through; pytest's own may not be."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def checks(ended: Ended) -> dict[str, dict[str, str]]:
    """What was found, by check; each check once, in the known order."""
    found = {each["check"]: each for each in ended.json["checks"]}
    assert tuple(found) == CHECKS
    assert len(found) == len(ended.json["checks"])
    return found


def failed(ended: Ended) -> dict[str, str]:
    """The one check that failed."""
    (only,) = (each for each in checks(ended).values() if each["verdict"] == "fail")
    assert only["hint"]
    assert (ended.code, ended.json["ok"], ended.json["exit"]) == (1, False, 1)
    return only


def of(ended: Ended, verdict: str) -> list[str]:
    """The checks with this verdict."""
    return [name for name, each in checks(ended).items() if each["verdict"] == verdict]


def tls(path: Path) -> Callable[[Any], Any]:
    """How a server wraps its connections."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return lambda sock: context.wrap_socket(sock, server_side=True)


def expired(folder: Path) -> Path:
    """A certificate for 127.0.0.1 of the year 2020, with its key in one file."""
    (folder / "index").write_text("")
    (folder / "settings").write_text(
        f"[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index\nnew_certs_dir={folder}\nrand_serial=yes\n"
        "default_md=sha256\npolicy=any\nx509_extensions=more\n[any]\ncommonName=supplied\n"
        "[more]\nsubjectAltName=IP:127.0.0.1\n"
    )
    key, request, made = folder / "key", folder / "request", folder / "made"
    new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=test"]
    sign = ["ca", "-config", str(folder / "settings"), "-batch", "-selfsign", "-keyfile", str(key), "-notext"]
    sign += ["-startdate", "20200101000000Z", "-enddate", "20200102000000Z", "-in", str(request), "-out", str(made)]
    for words in ([*new, "-keyout", str(key), "-out", str(request)], sign):
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    path = folder / "expired.pem"
    path.write_bytes(key.read_bytes() + made.read_bytes())
    return path


def https(behaviour: Any, path: Path) -> AbstractContextManager[Any]:
    """A server with this certificate."""
    return serving(behaviour, wrap=tls(path))


def healthy(date: float) -> Any:
    """A server that is well and whose clock stands at `date`; nobody's token is good there."""
    body = b'{"status": "ok"}'
    return always(http(body, headers={"Date": formatdate(date, usegmt=True)}))


# ---- no fault


def test_where_all_is_well_everything_is_ok(chatsdk: Shell) -> None:
    """Twelve times ok, exit code 0, nothing on standard error; the second time with a state directory."""
    for _ in range(2):
        ended = chatsdk("doctor", "--json")
        assert (ended.code, ended.err, ended.json["ok"]) == (0, "", True)
        assert of(ended, "ok") == list(CHECKS)


def test_people_get_a_line_a_check(chatsdk: Shell, nowhere: str) -> None:
    """The verdict first, and what to do under what failed."""
    ended = chatsdk("doctor", CHATSDK_URL=nowhere)
    assert ended.code == 1
    lines = ended.out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("fail"))
    assert lines[at].split()[1] == "tcp"
    assert lines[at + 1].strip().startswith("-> ")
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["ok"] * 5 + ["fail"] + ["skip"] * 6


def test_without_settings_it_is_78(chatsdk: Shell) -> None:
    """No URL, or one that makes no sense: there is nothing to look at, and the sentence says so."""
    ended = chatsdk("doctor", CHATSDK_URL=None)
    assert (ended.code, ended.out) == (78, "")
    assert "url is not set" in ended.err


# ---- the way


def test_a_wrong_host(chatsdk: Shell) -> None:
    """A name that nobody has is a matter of DNS; what needs it is not tried."""
    ended = chatsdk("doctor", "--json", CHATSDK_URL="https://no-such-host.invalid")
    assert failed(ended)["check"] == "dns"
    assert "no-such-host.invalid" in failed(ended)["message"]
    assert of(ended, "skip") == list(CHECKS[5:])


def test_a_closed_port(chatsdk: Shell, nowhere: str) -> None:
    """The name is good, the port is not."""
    fault = failed(chatsdk("doctor", "--json", CHATSDK_URL=nowhere))
    assert fault["check"] == "tcp"
    assert nowhere.rpartition(":")[2] in fault["message"]


def test_a_closed_proxy(chatsdk: Shell, nowhere: str) -> None:
    """It is the proxy that does not listen; its credentials are not shown."""
    proxy = nowhere.replace("//", "//me:hush-hush@")
    ended = chatsdk("doctor", "--json", CHATSDK_PROXY=proxy)
    assert failed(ended)["check"] == "tcp"
    assert "the proxy runs" in failed(ended)["hint"]
    assert "hush-hush" not in ended.out + ended.err


def test_a_proxy_that_lets_nobody_through(chatsdk: Shell) -> None:
    """It is there, and refuses the tunnel."""
    with serving(always(http(status="403 Forbidden"))) as peer:
        proxy = f"http://127.0.0.1:{peer.port}"
        fault = failed(chatsdk("doctor", "--json", CHATSDK_URL="https://chat.invalid", CHATSDK_PROXY=proxy))
    assert (fault["check"], "the proxy gives no way" in fault["message"]) == ("tls", True)


@needs_openssl
def test_an_expired_certificate(chatsdk: Shell, tmp_path: Path) -> None:
    """It says expired, and who has to do something."""
    path = expired(tmp_path)
    with https(always(http()), path) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        fault = failed(chatsdk("doctor", "--json", CHATSDK_URL=url, CHATSDK_CA_BUNDLE=str(path)))
    assert (fault["check"], "expired" in fault["message"]) == ("tls", True)
    assert "renew" in fault["hint"]


@needs_openssl
def test_a_certificate_for_another_host(chatsdk: Shell, tmp_path: Path) -> None:
    """Its issuer is known, its name is not ours."""
    path = certificate(tmp_path, "DNS:other.invalid")
    with https(always(http()), path) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        fault = failed(chatsdk("doctor", "--json", CHATSDK_URL=url, CHATSDK_CA_BUNDLE=str(path)))
    assert (fault["check"], "another host" in fault["message"]) == ("tls", True)


@needs_openssl
def test_an_unknown_issuer(chatsdk: Shell, tmp_path: Path) -> None:
    """Nobody vouches for it."""
    path = certificate(tmp_path, "IP:127.0.0.1")
    with https(always(http()), path) as peer:
        fault = failed(chatsdk("doctor", "--json", CHATSDK_URL=f"https://127.0.0.1:{peer.port}"))
    assert (fault["check"], "issuer is unknown" in fault["message"]) == ("tls", True)
    assert "ca_bundle" in fault["hint"]


@needs_openssl
def test_a_certificate_that_ends_soon_is_a_warning(chatsdk: Shell, tmp_path: Path) -> None:
    """It is good for two days: TLS works, and somebody should know."""
    path = certificate(tmp_path, "IP:127.0.0.1")
    with https(healthy(time.time()), path) as peer:
        url = f"https://127.0.0.1:{peer.port}"
        found = checks(chatsdk("doctor", "--json", CHATSDK_URL=url, CHATSDK_CA_BUNDLE=str(path)))
    assert found["tls"]["verdict"] == "warn"
    assert found["server"]["verdict"] == "ok"


def test_a_silent_server_does_not_hold_it_up(chatsdk: Shell) -> None:
    """It takes connections and says nothing: --timeout bounds each check."""
    with serving(lambda peer: peer.hold()) as peer:
        began = time.monotonic()
        ended = chatsdk("doctor", "--json", "--timeout", "0.3s", CHATSDK_URL=f"http://127.0.0.1:{peer.port}")
        took = time.monotonic() - began
    assert failed(ended)["check"] == "server"
    assert took < 10


# ---- the server


def test_a_captive_portal(chatsdk: Shell, server: DevServer) -> None:
    """A sign-in page instead of JSON: the network's doing, not the server's."""
    server.faults("html")
    ended = chatsdk("doctor", "--json")
    assert failed(ended)["check"] == "captive portal"
    assert "browser" in failed(ended)["hint"]
    assert of(ended, "skip") == list(CHECKS[8:])


def test_a_captive_portal_that_redirects(chatsdk: Shell, server: DevServer) -> None:
    """To the host of the sign-in page."""
    server.faults("redirect", location="http://portal.invalid/login", status=302)
    assert failed(chatsdk("doctor", "--json"))["check"] == "captive portal"


def test_a_server_that_fails(chatsdk: Shell, server: DevServer) -> None:
    """A 503 of /health is the server's fault; the rest is still looked at."""
    server.faults("status", operation="health", status=503)
    ended = chatsdk("doctor", "--json")
    assert failed(ended)["check"] == "server"
    assert "skip" not in {each["verdict"] for each in checks(ended).values()}


@pytest.mark.parametrize(("skew", "verdict"), [(3600, "fail"), (-3600, "fail"), (100, "warn"), (0, "ok")])
def test_a_skewed_clock(chatsdk: Shell, skew: int, verdict: str) -> None:
    """By the Date of the server's answer, in both directions."""
    with serving(healthy(time.time() + skew)) as peer:
        found = checks(chatsdk("doctor", "--json", CHATSDK_URL=f"http://127.0.0.1:{peer.port}"))["clock"]
    assert found["verdict"] == verdict
    if skew:
        assert ("behind" if skew > 0 else "ahead of") in found["message"]


def test_a_wrong_token(chatsdk: Shell, server: DevServer) -> None:
    """Refused, and not shown; the websocket, whose token comes from the same place, is left alone."""
    head, _, signature = server.tokens["alice"].rpartition(".")
    ended = chatsdk("doctor", "--json", CHATSDK_TOKEN=f"{head}.{signature[::-1]}")
    fault = failed(ended)
    assert of(ended, "skip") == ["websocket"]
    assert (fault["check"], "refuses" in fault["message"]) == ("token", True)


def test_an_expired_token(chatsdk: Shell, server: DevServer) -> None:
    """It says since when, which "refused" would not."""
    token = server.mint("alice", claims={"exp": int(time.time()) - 7300})
    fault = failed(chatsdk("doctor", "--json", CHATSDK_TOKEN=token))
    assert fault["check"] == "token"
    assert "expired 2.0 h ago" in fault["message"]


def test_no_token(chatsdk: Shell) -> None:
    """The ways to give one are named."""
    fault = failed(chatsdk("doctor", "--json", CHATSDK_TOKEN=None, CHATSDK_WS_TOKEN=None))
    assert fault["check"] == "token"
    assert "CHATSDK_TOKEN" in fault["hint"]


def test_a_token_that_ends_soon_is_a_warning(chatsdk: Shell, server: DevServer) -> None:
    """Where there is no way to a new one."""
    ended = chatsdk("doctor", "--json", CHATSDK_TOKEN=server.mint("alice", ttl=60))
    assert (ended.code, of(ended, "warn")) == (0, ["token"])


def test_a_websocket_that_does_not_get_through(chatsdk: Shell, server: DevServer) -> None:
    """HTTP works, the upgrade is refused, as filters do."""
    server.faults("ws_refuse", status=403)
    fault = failed(chatsdk("doctor", "--json", "--timeout", "1s"))
    assert (fault["check"], "filter" in fault["hint"]) == ("websocket", True)


# ---- this machine


def test_a_state_directory_that_cannot_be_written(chatsdk: Shell, open_directory: Path) -> None:
    """Read-only for its owner (as whom root works): named, with the path, and nothing is made."""
    place = open_directory / "state"
    place.mkdir()
    if is_root:
        os.chown(place, OWNER, OWNER)
    place.chmod(0o500)
    fault = failed(chatsdk("doctor", "--json", CHATSDK_STATE_DIR=str(place)))
    assert (fault["check"], str(place) in fault["message"]) == ("state directory", True)
    assert "CHATSDK_STATE_DIR" in fault["hint"]
    assert list(place.iterdir()) == []


def test_a_state_directory_that_was_made_read_only(chatsdk: Shell, open_directory: Path) -> None:
    """It worked before, and is full of messages perhaps."""
    chatsdk.environ["CHATSDK_STATE_DIR"] = str(open_directory / "state")
    assert chatsdk("doctor").code == 0
    chatsdk("send", "general", "x", "--no-wait")
    (database,) = (open_directory / "state").glob("*/default")
    if is_root:
        for path in (database.parent, database, *database.rglob("*")):
            os.chown(path, OWNER, OWNER)
    database.chmod(0o500)
    ended = chatsdk("doctor", "--json")
    assert checks(ended)["state directory"]["verdict"] == "fail"
    assert ended.code == 1


@pytest.mark.skipif(not is_root, reason="only root can give files away")
def test_a_state_directory_of_somebody_else(chatsdk: Shell, open_directory: Path) -> None:
    """Two owners in one place: whose it is, and whose it should be."""
    chatsdk.environ["CHATSDK_STATE_DIR"] = str(open_directory / "state")
    chatsdk("send", "general", "x", "--no-wait")
    (database,) = (open_directory / "state").glob("*/default")
    os.chown(database.parent, OWNER, OWNER)
    os.chown(database, ANOTHER, ANOTHER)
    database.parent.chmod(0o755)
    ended = chatsdk("doctor", "--json")
    found = checks(ended)["state directory"]
    assert (ended.code, found["verdict"]) == (1, "fail")
    assert f"belongs to user {OWNER}, not to user {ANOTHER}" in found["message"]


@pytest.mark.skipif(not is_root, reason="only root can become somebody else")
def test_root_looks_as_the_owner(chatsdk: Shell, open_directory: Path) -> None:
    """Where the outbox is somebody's, all is looked at as that user would, and nothing of root's is left behind."""
    place = open_directory / "state"
    place.mkdir(0o700)
    os.chown(place, OWNER, OWNER)
    ended = chatsdk("doctor", "--json", CHATSDK_STATE_DIR=str(place))
    assert (ended.code, of(ended, "ok")) == (0, list(CHECKS))
    assert {path.lstat().st_uid for path in (place, *place.rglob("*"))} == {OWNER}


def test_a_broken_plugin(chatsdk: Shell, tmp_path: Path) -> None:
    """Which one, of what, and why; the rest works without it."""
    place = tmp_path / "installed"
    facts = place / "chat_broken-1.2.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: chat-broken\nVersion: 1.2\n")
    (facts / "entry_points.txt").write_text("[chatsdk]\nbroken = plugin_broken\n")
    (place / "plugin_broken.py").write_text("raise RuntimeError('a bad release')\n")
    ended = chatsdk("doctor", "--json", PYTHONPATH=f"{ROOT}:{place}")
    fault = failed(ended)
    assert fault["check"] == "plugins"
    assert fault["message"] == "broken of chat-broken: RuntimeError: a bad release"
    assert "[plugins.broken]" in fault["hint"]
    assert len(of(ended, "ok")) == len(CHECKS) - 1


# ---- verdicts


def test_only_a_failure_is_an_exit_code() -> None:
    """Warnings and what was not tried are none."""
    assert exit_code([warn("a", "b", "c"), skip("d", "a")]) == 0
    assert exit_code([verdicts.of_health("", ServerError("no", status=500))]) == 1


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("certificate has expired", "has expired"),
        ("certificate is not yet valid", "not yet valid"),
        ("Hostname mismatch, certificate is not valid for 'x'.", "another host"),
        ("IP address mismatch, certificate is not valid for '10.0.0.1'.", "another host"),
        ("self-signed certificate in certificate chain", "issuer is unknown"),
        ("self signed certificate", "issuer is unknown"),
        ("unable to get local issuer certificate", "issuer is unknown"),
        ("WRONG_VERSION_NUMBER", "WRONG_VERSION_NUMBER"),
    ],
)
def test_what_tls_errors_mean(reason: str, words: str) -> None:
    """In words that say whose turn it is; what nobody knows is shown as it came."""
    found = verdicts.of_tls_error(NotSentError(f"no secure connection to h: {reason}", code="tls"))
    assert found.verdict is Verdict.FAIL
    assert words in found.message
    assert found.hint


def test_a_refusal_before_the_end_is_no_expiry() -> None:
    """By what the token says of itself; without an end nothing is claimed."""
    for ended in (None, -5.0):
        assert "expired" not in verdicts.of_token_error(Unauthorized("no", status=401), ended).message

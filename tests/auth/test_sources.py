"""Static tokens, providers, files, commands, signers, and the order they are asked in."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.auth import SignedTokens, build_sources
from chatsdk.auth.sources import MAX_TEXT, StaticToken, TokenProvider, as_token
from chatsdk.auth.token_command import TokenCommand
from chatsdk.auth.token_file import TokenFile
from chatsdk.auth.token_text import parse
from chatsdk.core.errors import SettingsError, TokenUnavailableError
from chatsdk.core.tokens import Secret, Token, TokenRequest
from chatsdk.resilience.deadline import bounded
from chatsdk.resilience.system_clock import SystemClock

ASK = TokenRequest("alice")


def access(source: Any, now: float = 0.0) -> str:
    """The access token that a source gives."""
    token = source.get(ASK, now)
    assert token is not None
    return str(token.access.reveal())


# ---- what a token may be


@pytest.mark.parametrize("text", ["a b", "a\nb", "a\r\nX-Evil: 1", "a\0b", "é", "x" * (MAX_TEXT + 1)])
def test_text_that_would_split_a_header_is_no_token(text: str) -> None:
    """Blanks, line breaks, NUL and non-ASCII inside a token are refused, and not repeated in the error."""
    for given_ in (text, Secret(text), Token("good", refresh=text)):
        with pytest.raises(TokenUnavailableError) as caught:
            as_token(given_, "it")
        assert text not in str(caught.value)


def test_what_counts_as_a_token() -> None:
    """Text (blanks around it cut off), Secret and Token do; nothing else, and no empty one without a refresh token."""
    assert as_token(" abc\n", "it") == as_token(Secret("abc"), "it") == as_token(Token("abc"), "it") == Token("abc")
    assert as_token(Token("", refresh="r"), "it").refresh == Secret("r")
    for given_ in ("", " ", b"abc", 5, {"token": "abc"}, Token("")):
        with pytest.raises(TokenUnavailableError):
            as_token(given_, "it")


def test_text_of_files_and_commands() -> None:
    """Plain text, our field names, a saved answer of the server, a byte order mark; blanks alone are no token."""
    full = {"token": "a", "refreshToken": "r", "expiresAt": 5, "_internal": {"wsToken": "w"}, "expiresIn": 900}
    assert parse(json.dumps(full).encode(), "it") == Token("a", "w", "r", 5.0)
    assert parse(b'{"access_token": "a", "ws_token": "w", "refresh_token": "r"}', "it") == Token("a", "w", "r")
    assert parse(b"\xef\xbb\xbfabc\n", "it") == Token("abc")
    assert parse(b" \n", "it") is None


@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: ("{" + text).encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_token_or_an_error(data: bytes) -> None:
    """Whatever a file holds, it is a token that fits a header, nothing, or TokenUnavailableError without its text."""
    failed: TokenUnavailableError | None = None
    token: Token | None = None
    try:
        token = parse(data, "it")
    except TokenUnavailableError as error:
        failed = error
    assert failed is None or (failed.__context__ is None and len(str(failed)) < 250)
    assert token is None or all("!" <= character <= "~" for character in token.access.reveal())


# ---- providers


def test_provider_is_asked_for_the_user() -> None:
    """The callable gets user and force; text, Secret, Token and None are taken."""
    asked: list[TokenRequest] = []
    answers: list[Any] = ["a", Secret("b"), Token("c", "w"), None]

    def provide(request: TokenRequest) -> Any:
        asked.append(request)
        return answers[len(asked) - 1]

    provider = TokenProvider(provide)
    got = [provider.get(TokenRequest("bob", force), 0) for force in (False, True, False, False)]
    assert got == [Token("a"), Token("b"), Token("c", "w"), None]
    assert asked[1] == TokenRequest("bob", True)


def test_provider_that_raises_is_told_by_place() -> None:
    """What a provider raises becomes TokenUnavailableError with type and line, but not its text, which may quote."""

    def provide(request: TokenRequest) -> str:
        raise KeyError("hush-hush")

    with pytest.raises(TokenUnavailableError) as caught:
        TokenProvider(provide).get(ASK, 0)
    assert "KeyError at test_sources.py:" in str(caught.value)
    assert "hush" not in str(caught.value)
    assert caught.value.__context__ is None


# ---- files


def test_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """A rewrite in place and a rename over it are noticed; an untouched file is not read again."""
    path = tmp_path / "token"
    path.write_text("one\n")
    path.chmod(0o600)
    source = TokenFile(path)
    assert source.changed()
    assert (access(source), source.changed()) == ("one", False)
    path.write_text("another\n")
    assert source.changed()
    assert (access(source), source.changed()) == ("another", False)
    new = tmp_path / "new"
    new.write_text("renamed\n")
    os.replace(new, path)
    assert source.changed()
    assert access(source) == "renamed"


def test_file_behind_links_that_are_turned(tmp_path: Path) -> None:
    """A mounted secret as Kubernetes does it: token -> ..data/token, ..data -> a dated folder, swapped by rename."""
    for name, text in (("..1", "old"), ("..2", "new")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "token").write_text(text)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "token").symlink_to("..data/token")
    source = TokenFile(tmp_path / "token")
    assert access(source) == "old"
    (tmp_path / "..tmp").symlink_to("..2")
    os.replace(tmp_path / "..tmp", tmp_path / "..data")
    assert source.changed()
    assert access(source) == "new"


def test_file_that_is_not_one(tmp_path: Path) -> None:
    """Missing, a folder, a FIFO, too large, not text: TokenUnavailableError at once that names the file."""
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_text("x" * (MAX_TEXT + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\0")
    (tmp_path / "broken").write_text('{"token": "hush-hush"')
    for name in ("missing", ".", "fifo", "large", "binary", "broken"):
        with pytest.raises(TokenUnavailableError) as caught:
            TokenFile(tmp_path / name).get(ASK, 0)
        assert str(tmp_path) in str(caught.value)
        assert "hush" not in str(caught.value)
        assert caught.value.__context__ is None
    assert not TokenFile(tmp_path / "missing").changed()


def test_file_that_everybody_may_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Is used, and warned of once."""
    path = tmp_path / "token"
    path.write_text("hush-hush")
    path.chmod(0o644)
    source = TokenFile(path)
    with caplog.at_level(logging.WARNING):
        assert access(source) == access(source) == "hush-hush"
    assert [record.getMessage().count(str(path)) for record in caplog.records] == [1]
    assert "hush" not in caplog.text


# ---- commands


def command(script: str, timeout: float = 20.0) -> TokenCommand:
    """A command that runs this shell script."""
    return TokenCommand(["/bin/sh", "-c", script], clock=SystemClock(), timeout=timeout)


def test_command_prints_a_token() -> None:
    """Standard output is the token, as text or JSON; no shell looks at the arguments."""
    assert access(command("echo abc; echo noise >&2")) == "abc"
    literal = TokenCommand([sys.executable, "-c", "import sys; print(sys.argv[1])", "$HOME;x"], clock=SystemClock())
    assert access(literal) == "$HOME;x"
    assert command("true").get(ASK, 0) is None


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo hush-hush >&2; exit 3", "exit code 3"),
        ("echo hush-hush; kill -9 $$", "exit code -9"),
        ("yes hush-hush", "more than"),
        ("echo 'hush hush'", "blanks"),
    ],
)
def test_command_that_fails(script: str, said: str) -> None:
    """A failing command, one that prints for ever, one that prints something else: why is told, not what it said."""
    with pytest.raises(TokenUnavailableError) as caught:
        command(script).get(ASK, 0)
    assert said in str(caught.value)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("script", ["sleep 60", "sleep 60 & exit 0", "exec >&-; sleep 60"])
def test_command_that_hangs(script: str) -> None:
    """A command that does not end, or leaves its output open, is ended in time, with its children."""
    began = time.monotonic()
    with pytest.raises(TokenUnavailableError, match=r"longer than 0\.2 s"):
        command(script, timeout=0.2).get(ASK, 0)
    assert time.monotonic() - began < 5


def test_command_in_a_callers_own_thread() -> None:
    """It gets no more time than the caller has left; in a thread of ours it has its own."""
    began = time.monotonic()
    with bounded(0.2, SystemClock()), pytest.raises(TokenUnavailableError, match=r"longer than 0\.[12]"):
        command("sleep 60", timeout=30).get(ASK, 0)
    assert time.monotonic() - began < 5


def test_command_leaves_nothing_behind(tmp_path: Path) -> None:
    """After a command that hung, its child process is gone."""
    note = tmp_path / "pid"
    with pytest.raises(TokenUnavailableError):
        command(f"sleep 60 & echo $! > {note}; exit 0", timeout=0.5).get(ASK, 0)
    pid = int(note.read_text())
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":  # dead; whoever is init here has not looked yet
            return
        time.sleep(0.01)
    pytest.fail("the child lives on")


def test_command_that_is_none() -> None:
    """A missing program is TokenUnavailableError, what is no list of arguments SettingsError; repr hides them."""
    with pytest.raises(TokenUnavailableError, match="can't be run"):
        TokenCommand(["/no/such/program", "hush-hush"], clock=SystemClock()).get(ASK, 0)
    assert "hush" not in repr(TokenCommand(["vault", "hush-hush"], clock=SystemClock()))
    for wrong in ("echo abc", [], ["echo", 5]):
        with pytest.raises(SettingsError):
            TokenCommand(wrong, clock=SystemClock())  # type: ignore[arg-type]


# ---- signers

KEY, WS_KEY = "k" * 32, "w" * 32


def test_signed_tokens_carry_the_servers_claims() -> None:
    """Header and claims are those of contract 4.1; the websocket's token has the other secret and no type."""
    token = SignedTokens(KEY, "app-1", ws_secret=WS_KEY, ttl=60, kid="k1").get(TokenRequest("bob"), 1000.9)
    told: dict[str, Any] = {"audience": "chatsdk-client", "issuer": "chatsdk-api", "algorithms": ["HS256"]}
    told["options"] = {"verify_exp": False}
    claims = jwt.decode(token.access.reveal(), KEY, **told)
    assert jwt.get_unverified_header(token.access.reveal()) == {"alg": "HS256", "typ": "JWT", "kid": "k1"}
    assert {name: claims[name] for name in ("sub", "user_id", "app_id", "type")} == {
        "sub": "app-1:bob",
        "user_id": "bob",
        "app_id": "app-1",
        "type": "access",
    }
    assert (claims["iat"], claims["nbf"], claims["exp"], token.expires_at) == (1000, 1000, 1060, 1060.0)
    assert set(claims["scopes"]) >= {"chat:read", "chat:write"}
    assert "sid" not in claims
    assert token.ws is not None
    ws = jwt.decode(token.ws.reveal(), WS_KEY, **told)
    assert "type" not in ws
    assert ws["sub"] == "app-1:bob"
    assert ws["jti"] != claims["jti"]


def test_signed_tokens_are_new_each_time() -> None:
    """Two tokens of one second differ, so a refused one is not given twice."""
    signer = SignedTokens(KEY, "app-1", time=lambda: 1000.0)
    assert signer(ASK).access != signer(ASK).access
    assert SignedTokens(KEY, "app-1")(ASK).ws is None


def test_signed_tokens_check_their_secrets() -> None:
    """Short secrets are warned of by name, empty ones and a ttl of nothing refused; repr shows none."""
    with pytest.warns(UserWarning, match="ws_secret is shorter"):
        signer = SignedTokens(KEY, "app-1", ws_secret="hush-hush")
    assert "hush" not in repr(signer)
    assert KEY not in repr(signer)
    for facts in ({"secret": ""}, {"ws_secret": ""}, {"ttl": 0.5}):
        with pytest.raises(SettingsError):
            SignedTokens(**{"secret": KEY, "app_id": "app-1", **facts})  # type: ignore[arg-type]


# ---- all of them


def test_order_of_sources(tmp_path: Path) -> None:
    """Configured token, provider, file, command, signer; empty settings make no source."""
    signer = SignedTokens(KEY, "app-1")
    sources = build_sources(
        clock=SystemClock(),
        token="a",
        ws_token=Secret("w"),
        refresh_token="r",
        token_provider=lambda request: "p",
        token_file=tmp_path / "token",
        token_command=["echo", "c"],
        signed=signer,
    )
    assert [source.name for source in sources] == ["static", "provider", "file", "command", "signed"]
    assert sources[0].get(ASK, 0) == Token("a", "w", "r")
    assert build_sources(clock=SystemClock(), token="", token_file="", token_command=()) == ()


def test_special_settings() -> None:
    """A refresh token alone is a source; so is a whole Token; a signer given as provider is asked as a signer."""
    (alone,) = build_sources(clock=SystemClock(), refresh_token=Secret("r"))
    assert alone.get(ASK, 0) == Token("", refresh="r")
    (whole,) = build_sources(clock=SystemClock(), token=Token("a", expires_at=5.0))
    assert isinstance(whole, StaticToken)
    signer = SignedTokens(KEY, "app-1")
    assert build_sources(clock=SystemClock(), token_provider=signer) == (signer,)

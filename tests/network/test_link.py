"""What the system says of its networks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chatsdk.network.link import LinkWatch, current_routes, is_local, read_routes

ROOT = Path(__file__).resolve().parents[2]

IPV4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
lo\t0000007F\t00000000\t0001\t0\t0\t0\t000000FF\t0\t0\t0
down0\t000300C0\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""
_ZERO = "0" * 32
IPV6 = f"""fd{"0" * 30} 40 {_ZERO} 00 {_ZERO} 00000100 00000001 00000000 00000001     eth0
fe80{"0" * 28} 40 {_ZERO} 00 {_ZERO} 00000100 00000002 00000000 00000001     eth0
{_ZERO} 00 {_ZERO} 00 {_ZERO} ffffffff 00000001 00000000 00200200       lo
ff{"0" * 30} 08 {_ZERO} 00 {_ZERO} 00000100 00000004 00000000 00000001     eth0
{_ZERO} 00 {_ZERO} 00 {_ZERO} ffffffff 00000001 00000000 00200200     eth1
"""

WATCHING = """
import subprocess, sys, threading
from chatsdk.network.link import LinkWatch

told, heard = [], threading.Condition()

def tell(there):
    with heard:
        told.append(there)
        heard.notify()

def hear(holds):
    with heard:
        assert heard.wait_for(holds, 10), told

def ip(*words):
    subprocess.run(["ip", *words], check=True)

watch = LinkWatch(tell)
assert watch.start()
hear(lambda: told == [False])             # no network at the start
ip("link", "add", "one", "type", "veth", "peer", "name", "two")
ip("addr", "add", "10.9.9.1/24", "dev", "one")
ip("link", "set", "two", "up")
ip("link", "set", "one", "up")
hear(lambda: told[-1])                    # there is one
before = len(told)
ip("addr", "add", "10.8.8.1/24", "dev", "one")
ip("addr", "del", "10.9.9.1/24", "dev", "one")
hear(lambda: len(told) > before)          # another one
ip("link", "set", "one", "down")
hear(lambda: not told[-1])                # none
threads = [thread for thread in threading.enumerate() if thread.name == "chatsdk-network-link"]
assert len(threads) == 1 and threads[0].daemon
assert watch.join(5) and not watch.alive and not threads[0].is_alive()
print(told)
"""


@cache
def _no_namespace() -> str:
    """Why a network of our own can't be had, "" if it can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "there is no unshare, or no ip"
    made = subprocess.run(
        ["unshare", "-rn", "ip", "link", "add", "one", "type", "veth", "peer", "name", "two"],
        capture_output=True,
        text=True,
        timeout=20,
    )
    return "" if made.returncode == 0 else f"no network namespace here: {made.stderr.strip()}"


def test_only_real_routes_count() -> None:
    """Not the loopback's, not those of an interface that is down, not link-local, multicast or rejecting ones."""
    assert {route.split()[0] for route in read_routes(IPV4, IPV6)} == {"eth0"}
    assert len(read_routes(IPV4, "")) == 2
    assert len(read_routes("", IPV6)) == 1
    assert read_routes("", "") == frozenset()


@given(st.text(), st.text())
def test_any_text_is_read(ipv4: str, ipv6: str) -> None:
    """The kernel's format may change: then there is nothing, and nothing breaks."""
    assert isinstance(read_routes(ipv4, ipv6), frozenset)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1", "[::1]", "a.localhost"])
def test_this_machine_needs_no_network(host: str) -> None:
    """A server beside us is reached without one."""
    assert is_local(host)


@pytest.mark.parametrize("host", ["chat.example", "10.0.0.1", "::2", "localhost.example", "999.0.0.1"])
def test_other_machines_do(host: str) -> None:
    """Whatever their names look like."""
    assert not is_local(host)


@pytest.mark.skipif(_no_namespace() != "", reason=_no_namespace() or "-")
def test_the_kernel_tells() -> None:
    """A network that comes, becomes another one and goes is told in that order, without polling; one thread."""
    ran = subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", WATCHING], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr
    told = ran.stdout.strip()
    assert told.startswith("[False, True, True")
    assert told.endswith("False]")


def test_a_system_that_offers_nothing_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread, no socket, no error."""
    assert not LinkWatch(print, routes=lambda: None).start()
    if current_routes() is not None:
        monkeypatch.delattr("socket.AF_NETLINK")
        watch = LinkWatch(print)
        assert not watch.start()
        assert watch.join(0.1)

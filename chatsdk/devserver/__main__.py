"""`python -m chatsdk.devserver`: the development server as a program of its own."""

from __future__ import annotations

import argparse
import logging
import sys

from chatsdk.devserver.server import RemoteNotAllowed, announce, run
from chatsdk.devserver.settings import ServerSettings
from chatsdk.devserver.store.database import DataFileError


def main(arguments: list[str] | None = None) -> int:
    """Parses the command line and runs the server. Returns 0, 1 if it cannot start, 2 for a bad command line."""
    defaults = ServerSettings()
    parser = argparse.ArgumentParser(prog="python -m chatsdk.devserver", description=__doc__)
    parser.add_argument("--host", default=defaults.host, help="where to listen (default %(default)s)")
    parser.add_argument("--port", type=int, default=5500, help="0 lets the system choose (default %(default)s)")
    parser.add_argument("--data", default=defaults.data, help="SQLite file, or :memory: (default)")
    parser.add_argument("--token-ttl", type=float, default=defaults.token_ttl, help="seconds that printed tokens live")
    parser.add_argument("--access-ttl", type=float, default=defaults.access_ttl, help="seconds of connect's tokens")
    parser.add_argument("--refresh-ttl", type=float, default=defaults.refresh_ttl, help="seconds of a session")
    parser.add_argument("--keep-alive", type=float, default=defaults.keep_alive, help="seconds of an idle connection")
    parser.add_argument("--rate-limits", action="store_true", help="the real server's limits, with 429")
    parser.add_argument("--allow-remote", action="store_true", help="permit a host that other machines can reach")
    parser.add_argument("--ping-interval", type=float, default=defaults.ping_interval, help="seconds between pings")
    parser.add_argument("--pong-timeout", type=float, default=defaults.pong_timeout, help="seconds until a pong is due")
    parser.add_argument(
        "--expired-close-delay",
        type=float,
        default=defaults.expired_close_delay,
        help="seconds after a websocket token's end",
    )
    parser.add_argument(
        "--expired-unsubscribe-delay",
        type=float,
        default=defaults.expired_unsubscribe_delay,
        help="seconds after a subscription token's end",
    )
    parser.add_argument("--history-size", type=int, default=defaults.history_size, help="publications kept of a stream")
    parser.add_argument("--no-recovery", action="store_true", help="chat streams without recovery")
    parser.add_argument("--ready-file", help="write what --json prints to this file once the server answers")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of text")
    parser.add_argument("--exit-with-stdin", action="store_true", help="stop when standard input ends")
    given = vars(parser.parse_args(arguments))
    as_json = given.pop("json")
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        run(ServerSettings(**given), lambda ready: announce(ready, as_json=as_json))
    except (RemoteNotAllowed, DataFileError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

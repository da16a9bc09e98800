"""uWSGI's workers close their client when they end: it calls `uwsgi.atexit` in each."""

import uwsgi  # type: ignore[import-untyped,import-not-found,unused-ignore]  # there inside of uWSGI only

from tests.servers.app import close

uwsgi.atexit = close

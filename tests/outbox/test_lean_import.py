"""What opening an outbox imports: a short process should not pay for what it does not use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_OPEN = """
import sys
from chatsdk.outbox.shared import open_store
from chatsdk.resilience.system_clock import SystemClock
open_store(sys.argv[1], clock=SystemClock()).close()
assert "persistqueue" in sys.modules
assert "asyncio" not in sys.modules, "persistqueue's other half was looked for"
assert "persistqueue.async_queue" not in sys.modules, "whoever wants it would be told that there is none"
"""

_LOGGING = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
from chatsdk.outbox.shared import open_store
from chatsdk.resilience.system_clock import SystemClock
open_store(sys.argv[1], clock=SystemClock()).close()
assert logging.getLogger("persistqueue").level == logging.NOTSET
"""

_WITH_AIOFILES = """
import sys
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "aiofiles").mkdir()
names = "import types; threadpool = types.SimpleNamespace(AsyncBufferedIOBase=object)"
(folder / "aiofiles" / "__init__.py").write_text(names)
(folder / "aiofiles" / "os.py").write_text("")
sys.path.insert(0, sys.argv[1])
from chatsdk.outbox.shared import open_store
from chatsdk.resilience.system_clock import SystemClock
open_store(folder / "state", clock=SystemClock()).close()
import persistqueue.async_queue
assert persistqueue.AsyncQueue is persistqueue.async_queue.AsyncQueue
"""


def _run(code: str, folder: Path) -> str:
    command = [sys.executable, "-c", code, str(folder)]
    return subprocess.run(command, check=True, timeout=60, stdout=subprocess.PIPE, text=True).stdout


def test_opening_an_outbox_does_not_import_asyncio(tmp_path: Path) -> None:
    """persistqueue asks for it in vain where aiofiles is missing; and nothing of ours stays in its way afterwards."""
    _run(_OPEN, tmp_path / "state")


def test_a_program_that_uses_the_other_half_keeps_it(tmp_path: Path) -> None:
    """Where aiofiles is installed, persistqueue is imported as it comes."""
    _run(_WITH_AIOFILES, tmp_path)


def test_opening_an_outbox_logs_nothing(tmp_path: Path) -> None:
    """An application that shows INFO hears nothing of persistqueue's pickles and extras, which are no part of this."""
    assert _run(_LOGGING, tmp_path / "state") == ""

"""What the store has not taken yet.

A message was delivered, or a lane is to be given back, and the disk is full or locked. Forgetting it would send the
message again or hold the lane for ever; so it is kept here and paid before anything new is claimed.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from ..core.errors import StorageError
from ..core.record import Record, record
from ..core.store import LaneLostError

logger = logging.getLogger("chatsdk.outbox")


@record(frozen=True, slots=True)
class _Debt(Record):
    pay: Callable[[], object]
    then: Callable[[], None]


class Debts:
    """Operations of the store that are still owed, in order. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owed: deque[_Debt] = deque()

    def __len__(self) -> int:
        return len(self._owed)

    def add(self, pay: Callable[[], object], then: Callable[[], None] = lambda: None) -> None:
        """Owe `pay()`; `then()` follows once it went through."""
        self._owed.append(_Debt(pay, then))

    def pay(self) -> None:
        """Pay all. Raises StorageError if the store still will not: the rest is still owed."""
        if not self._owed or not self._lock.acquire(blocking=False):
            return  # somebody is paying; what is owed keeps its lane until it is paid
        try:
            while self._owed:
                debt = self._owed[0]
                try:
                    debt.pay()
                except StorageError:
                    raise
                except LaneLostError:
                    self._owed.popleft()
                    continue
                except Exception:  # it would fail the next time too, and everything else must go on
                    logger.exception("the outbox's store failed unexpectedly; one message will be sent again")
                    self._owed.popleft()
                    continue
                self._owed.popleft()
                debt.then()
        finally:
            self._lock.release()

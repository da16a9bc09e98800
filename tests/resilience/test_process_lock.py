"""A lock that a forked child does not inherit."""

from __future__ import annotations

import os
import signal
import threading

from chatsdk.resilience.process_lock import ProcessLock


def test_it_keeps_threads_apart() -> None:
    """Within a process it is a lock like any other."""
    lock, inside, most = ProcessLock(), 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(200):
            with lock:
                inside += 1
                most = max(most, inside)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_child_does_not_inherit_it() -> None:
    """A child takes it although its parent holds it, and the parent still holds it afterwards."""
    lock = ProcessLock()
    with lock:
        pid = os.fork()
        if pid == 0:
            signal.alarm(5)
            with lock:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        taken = threading.Event()

        def take() -> None:
            with lock:
                taken.set()

        thread = threading.Thread(target=take)
        thread.start()
        assert not taken.wait(0.05)
    thread.join(5)
    assert taken.is_set()

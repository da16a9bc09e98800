"""The sending process's record."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from chatsdk.cli.demo.notes import Name, Notebook, read_notes, read_text

COUNT = st.integers(min_value=0, max_value=10**6)


@given(st.builds(Name, COUNT, COUNT, COUNT))
def test_a_text_says_which_message_it_is(name: Name) -> None:
    """What was written is read back."""
    assert read_text(name.text()) == name


@given(st.text())
def test_other_texts_are_nobodys(text: str) -> None:
    """Nothing else is taken for a message of the demo, and nothing raises."""
    name = read_text(text)
    assert name is None or name.text() == text


def test_threads_do_not_mix(tmp_path: Path) -> None:
    """Every line of every thread is whole."""
    notebook = Notebook(tmp_path / "notes")

    def write(channel: int) -> None:
        for n in range(200):
            notebook.begun(Name(1, channel, n))
            notebook.accepted(Name(1, channel, n), f"key-{channel}-{n}")

    threads = [threading.Thread(target=write, args=(channel,)) for channel in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    notebook.close()
    notes = read_notes(tmp_path / "notes")
    assert len(notes.begun) == len(notes.accepted) == 800
    assert notes.accepted[Name(1, 3, 7)] == "key-3-7"


def test_what_was_noted_survives_sigkill(tmp_path: Path) -> None:
    """A line that was written is there after the writer was killed in the middle of its work."""
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from chatsdk.cli.demo.notes import Name, Notebook\n"
        "notebook = Notebook(Path(sys.argv[1]))\n"
        "notebook.begun(Name(1, 0, 0)); notebook.accepted(Name(1, 0, 0), 'k'); notebook.begun(Name(1, 0, 1))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "notes")], check=False)
    assert ended.returncode == -9
    notes = read_notes(tmp_path / "notes")
    assert notes.accepted == {Name(1, 0, 0): "k"}
    assert notes.begun == {Name(1, 0, 0), Name(1, 0, 1)}


def test_no_record_says_nothing(tmp_path: Path) -> None:
    """A process that wrote nothing yet is no error."""
    assert read_notes(tmp_path / "missing").accepted == {}

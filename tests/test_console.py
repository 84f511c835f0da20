"""Progress: a bar on a terminal, a line now and then in a log file."""

import io
import sys

import pytest

import sharnn.io.console
from sharnn.io.console import Progress, notify
from small import small_model


class Stream(io.StringIO):
    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


class Clock:
    """A clock that a test moves."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(sharnn.io.console, "time", clock)
    return clock


def test_a_log_file_gets_a_line_every_half_minute(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(terminal=False))
    with Progress(total=100) as progress:
        for second in range(100):
            clock.now = second
            progress.update(second, f"step {second}")
    lines = sys.stderr.getvalue().split("\n")
    assert lines == [
        " 30% 00:30<01:10, step 30",
        " 60% 01:00<00:40, step 60",
        " 90% 01:30<00:10, step 90",
        " 99% 01:39<00:01, step 99",
        "",
    ]
    assert "\r" not in sys.stderr.getvalue()


def test_a_resumed_task_estimates_the_rest_from_its_own_speed(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Stream(terminal=False))
    with Progress(total=100, initial=50) as progress:
        clock.now = 40
        progress.update(60)
    assert sys.stderr.getvalue().startswith(" 60% 00:40<02:40\n")


def test_a_terminal_and_a_notebook_get_a_bar(monkeypatch):
    class OutStream(Stream):
        __module__ = "ipykernel.iostream"

    for stream in (Stream(terminal=True), OutStream(terminal=False)):
        monkeypatch.setattr(sys, "stderr", stream)
        with Progress(total=10) as progress:
            progress.update(10, "step 3")
        assert "\r" in stream.getvalue()
        assert "100%" in stream.getvalue()
        assert "step 3" in stream.getvalue()


@pytest.mark.parametrize("terminal", [False, True])
def test_compression_shows_its_rate(terminal, monkeypatch):
    model = small_model()
    monkeypatch.setattr(sys, "stderr", Stream(terminal))
    sharnn.compress(model, b"abc" * 10, progress_bar=True)
    shown = sys.stderr.getvalue()
    assert "100%" in shown
    assert "B/s" in shown
    assert ("\r" in shown) == terminal


def test_a_closed_standard_error_is_no_error(monkeypatch):
    closed = Stream(terminal=False)
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr(sys, "stderr", stream)
        assert not notify("hello")
        with Progress(total=10) as progress:
            progress.update(1)


def test_messages_are_one_line(capsys):
    assert notify("one\ntwo   three")
    assert capsys.readouterr().err == "sharnn: one two three\n"

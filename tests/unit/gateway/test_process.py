"""`wunder serve --detach`, `wunder stop`, `wunder migrate`: real processes, but nothing of Ray in them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from actors.errors import Conflict, ServiceUnavailable
from gateway import process as module
from gateway.__main__ import main
from gateway.pid_file import PidFile
from gateway.voice import SETTLED, ReadyPipe

HOLD = "import sys; from gateway.pid_file import PidFile; from pathlib import Path; f = PidFile(Path(sys.argv[1]))"


def holder(folder: Path, then: str) -> subprocess.Popen[str]:
    """A process that serves from the folder, and has said so."""
    code = f"{HOLD}; f.take(); print('ready', flush=True); {then}"
    found = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert found.stdout is not None
    assert found.stdout.readline() == "ready\n"
    return found


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    found = holder(tmp_path, "import signal; signal.pause()")
    yield found
    found.kill()
    found.communicate()


def test_the_file_names_who_holds_it_only_while_that_lives(tmp_path: Path, serving: subprocess.Popen[str]) -> None:
    file = PidFile(tmp_path)
    assert file.running() == serving.pid
    assert not file.take()
    serving.kill()
    serving.wait()
    assert file.running() is None
    assert file.take()
    assert file.take(), "it is ours already"
    assert PidFile(tmp_path).running() == os.getpid()
    file.leave()
    assert file.running() is None


def test_stop_ends_the_process_and_waits_for_its_end(
    tmp_path: Path, serving: subprocess.Popen[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stop", "--data-dir", str(tmp_path)]) == 0
    assert serving.wait(10) == -15
    assert f"process {serving.pid} has ended" in capsys.readouterr().out


def test_stop_says_when_there_is_nothing_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    assert main(["stop", "--data-dir", str(missing)]) == 1
    assert "nothing serves from" in capsys.readouterr().err
    assert not missing.exists()


def test_stop_gives_up_after_its_timeout_and_says_what_to_do(tmp_path: Path) -> None:
    stubborn = holder(
        tmp_path, "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"
    )
    try:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == "deaf\n"
        with pytest.raises(ServiceUnavailable, match=r"still drains after 0\.1 s") as refused:
            module.stop(str(tmp_path), timeout_s=0.1)
        assert f"kill -9 {stubborn.pid}" in str(refused.value.hint)
        assert stubborn.poll() is None
    finally:
        stubborn.kill()
        stubborn.communicate()


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `python` that runs what the test writes there instead of `-m gateway`; it gets the descriptor as `fd`."""
    path = tmp_path / "command"
    monkeypatch.setattr(module, "sys", SimpleNamespace(executable=str(path)))
    return path


def write(path: Path, body: str) -> None:
    head = f"#!{sys.executable}\nimport os, sys\nsys.path.insert(0, {str(Path.cwd())!r})\n"
    head += "fd = int(sys.argv[sys.argv.index('--ready-fd') + 1])\n"
    path.write_text(head + textwrap.dedent(body))
    path.chmod(0o755)


def test_a_detached_start_ends_when_it_is_ready(
    tmp_path: Path, command: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(command, f"os.write(fd, b'the password\\nready\\n{SETTLED}'); print('into the log')")
    assert module.detach(["serve", "--detach", "--port", "0"], tmp_path) == 0
    assert capsys.readouterr().out.startswith("the password\nready\n  process    ")
    os.wait()
    log = tmp_path / module.LOG
    assert log.read_text() == "into the log\n", "what is for a person is not in it"
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_detached_start_that_fails_shows_the_end_of_this_ones_log(tmp_path: Path, command: Path) -> None:
    (tmp_path / module.LOG).write_text("of an earlier start\n")
    write(command, "print('\\n'.join(f'line {n}' for n in range(30))); sys.exit(2)")
    with pytest.raises(ServiceUnavailable, match=r"did not start \(exit code 2\)") as failed:
        module.detach(["serve", "--detach"], tmp_path)
    assert "line 29" in failed.value.message
    assert "line 9\n" not in failed.value.message
    assert "earlier" not in failed.value.message


def test_a_second_detached_start_is_refused_at_once(tmp_path: Path, serving: subprocess.Popen[str]) -> None:
    with pytest.raises(Conflict, match=str(serving.pid)):
        module.detach(["serve", "--detach"], tmp_path)


def test_what_is_said_after_the_start_goes_to_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    reader, writer = os.pipe()
    pipe = ReadyPipe(writer)
    pipe.say("first")
    pipe.settled("ready")
    pipe.say("later")
    with os.fdopen(reader) as said:
        assert said.read() == f"first\nready\n{SETTLED}"
    assert capsys.readouterr().out == "later\n"


def test_nobody_who_waits_is_no_reason_to_fail() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    pipe = ReadyPipe(writer)
    pipe.say("to nobody")
    pipe.settled("ready")


def test_migrate_brings_the_schema_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["migrate", "--data-dir", str(tmp_path), "--post"]
    assert main(arguments) == 0
    assert "applied  0001_initial.pre" in capsys.readouterr().out
    assert main(arguments) == 0
    assert "up to date" in capsys.readouterr().out

"""`mirage explore` as people call it: what it says, what it refuses, and that it saves when it is told to end."""

import re
import signal
import subprocess
import sys
import threading

import pytest

from mirage.cli import main
from mirage.explorer.client import Explorer
from mirage.explorer.server import Limits, Serving, is_loopback
from mirage.world import World


@pytest.mark.parametrize(
    "words, said",
    [
        (["nothing.jpg"], "nothing.jpg does not exist"),
        (["."], "without a world.json"),
        (["missing.zip"], "missing.zip does not exist"),
        (["--port", "70000"], "0 to 65535"),
        (["--token", "short"], "at least 8 letters"),
        (["--host", "no.such.host.invalid", "--token", "k7PqX2mZ9wLr"], "cannot answer at no.such.host.invalid"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    assert main(["explore", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_missing_package_is_named_with_the_way_out(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    monkeypatch.delitem(sys.modules, "mirage.explorer.server")
    assert main(["explore"]) == 2
    assert "the explorer needs fastapi: pip install 'mirage-world[explore]'" in capsys.readouterr().err


def test_a_token_is_made_where_others_can_come():
    assert Serving().token is None and Serving(host="::1").token is None
    made = Serving(host="0.0.0.0").token
    assert len(made) >= 32 and made != Serving(host="0.0.0.0").token
    assert not any(map(is_loopback, ("0.0.0.0", "10.0.0.1", "example.org", "127.0.0.1.example.org")))
    with pytest.raises(ValueError, match="sessions must be positive"):
        Limits(sessions=0)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_saves_all_when_it_is_ended(tmp_path, photo, end):
    command = [sys.executable, "-m", "mirage", "explore", str(photo), "--port", "0", "--out", str(tmp_path / "worlds")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        address = re.fullmatch(r"open (\S+)\n", process.stdout.readline())[1]
        server = Explorer(address)
        world = server.open(address.rpartition("#")[2])
        assert world.state["title"] == "photo"
        world.move("left 20deg")
        threading.Timer(0.1, process.send_signal, [end]).start()
        world.generate(wait=False)
        process.wait(60)
    finally:
        process.kill()
        output = process.communicate()
    assert process.returncode == 130 and "every world is saved" in output[1], output
    assert "Traceback" not in output[1]
    with World.open(tmp_path / "worlds" / world.name) as kept:
        assert len(kept.chunks) in (1, 2) and not kept.verify().problems

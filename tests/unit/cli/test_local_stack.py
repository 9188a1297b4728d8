"""The record of a stack, and what `down` ends: real processes, no Ray."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from cluster.models.catalogue import find as find_model
from cluster.models.gpus import read_listing
from cluster.serving.settings import DeploySettings
from deploy.local import stack as local
from deploy.local.configs import write_engine
from deploy.local.home import Home
from deploy.local.model import NoSuchModel, choose
from deploy.local.placement import DoesNotFit, engine_arguments
from deploy.local.processes import find, last_words, start
from deploy.local.record import MARK, Process, Stack
from deploy.local.secrets import Secrets

# Says that it is there, then waits for its end: a test reads the line and needs no sleep.
PATIENT = "import signal; print('up', flush=True); signal.pause()"
PARENT = f"""
import subprocess, sys, signal
child = subprocess.Popen([sys.executable, "-c", {PATIENT!r}], stdout=subprocess.PIPE, start_new_session=True)
child.stdout.readline()
print(child.pid, flush=True)
signal.pause()
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home.of({"HEADRACE_HOME": str(tmp_path / "home"), "HEADRACE_CACHE": str(tmp_path / "cache")})
    home.make()
    return home


@pytest.fixture
def recorded(home: Home) -> Iterator[Stack]:
    stack = Stack("mark-" + os.urandom(4).hex(), "m", None, "/m", "sim", "127.0.0.1:1", "", "", complete=True)
    yield stack
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == stack.id:
                process.kill()
        except psutil.Error:
            continue


def begin(home: Home, stack: Stack, name: str, program: str) -> Process:
    """Started as the stack starts its parts; returns once the program has written its line."""
    log = home.logs / f"{name}.log"
    process = start(name, [sys.executable, "-c", program], {**os.environ, MARK: stack.id}, log, home.root)
    while not log.read_text():
        assert find(process), "it ended before it said anything"
    stack.processes.append(process)
    stack.save(home.record)
    return process


def test_a_record_reads_back_as_it_was_written_and_is_private(home: Home, recorded: Stack) -> None:
    recorded.processes = [Process("store", 7, 1.5, "/log")]
    recorded.save(home.record)
    assert Stack.load(home.record) == recorded
    assert stat.S_IMODE(home.record.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_a_file_that_is_no_record_is_refused(home: Home) -> None:
    home.record.write_text('{"processes": [{"pid": 1}]}')
    with pytest.raises(ValueError, match=r"stack\.json"):
        Stack.load(home.record)


def test_secrets_are_drawn_once_and_do_not_print(home: Home) -> None:
    secrets = Secrets.kept_in(home.secrets)
    assert Secrets.kept_in(home.secrets) == secrets
    assert secrets.key_pepper not in repr(secrets)
    assert stat.S_IMODE(home.secrets.stat().st_mode) == 0o600


def test_down_ends_what_is_recorded_and_its_orphans_and_is_idempotent(home: Home, recorded: Stack) -> None:
    parent = begin(home, recorded, "parent", PARENT)
    child = psutil.Process(int(Path(parent.log).read_text()))
    other = begin(home, recorded, "other", PATIENT)
    # The parent dies first, so that its child has no recorded ancestor any more.
    os.kill(parent.pid, signal.SIGKILL)
    os.waitpid(parent.pid, 0)
    assert local.down(home) == [f"other (pid {other.pid})", "1 stray process"]
    assert not child.is_running()
    assert find(other) is None
    assert local.down(home) == []


def test_down_spares_a_process_that_got_a_recorded_pid(home: Home, recorded: Stack) -> None:
    with subprocess.Popen([sys.executable, "-c", PATIENT], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout and stranger.stdout.readline()
        born = psutil.Process(stranger.pid).create_time()
        recorded.processes = [Process("gateway", stranger.pid, born - 60, "")]
        recorded.save(home.record)
        assert local.down(home) == []
        assert stranger.poll() is None
        stranger.kill()


def test_a_stack_with_a_dead_part_is_not_up(home: Home, recorded: Stack) -> None:
    begin(home, recorded, "store", PATIENT)
    recorded.processes.append(Process("gateway", recorded.processes[0].pid, 1.0, ""))
    recorded.save(home.record)
    state = local.look(home)
    assert state and not state.up
    assert [process.name for process in state.dead] == ["gateway"]
    local.down(home)


def test_two_at_once_are_refused(home: Home) -> None:
    with local._alone(home), pytest.raises(local.Refused, match="at work"):
        local.down(home)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ("", "its log is empty"),
        ("one\ntwo\n", "two"),
        ("ValueError: no such file\nbye\n", "ValueError: no such file"),
        (
            "(W pid=1) ERROR [x.py:1] a.B.KeyError: 'x'\nRuntimeError: See root cause above\n",
            "a.B.KeyError: 'x'",
        ),
        ("2026 ERROR it broke\nbye\n", "2026 ERROR it broke"),
    ],
)
def test_the_last_words_of_a_log_name_the_cause(tmp_path: Path, lines: str, words: str) -> None:
    log = tmp_path / "log"
    log.write_text(lines)
    assert last_words(log) == words


def test_the_model_goes_by_hardware_unless_asked(home: Home, tmp_path: Path) -> None:
    assert choose(None, {}, home, gpu=False).name == "smollm2-135m"
    snapshot = tmp_path / "hub/models--openai--gpt-oss-20b/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    found = choose(None, {"HF_HUB_CACHE": str(tmp_path / "hub")}, home, gpu=True)
    assert (found.name, found.checkpoint, found.gpu) == ("gpt-oss-20b", snapshot, True)
    assert choose(str(snapshot), {}, home, gpu=False).name == "abc"


def test_a_checkpoint_that_is_not_there_says_how_to_get_it(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel, match="MODEL_PATH"):
        choose(None, {"HF_HUB_CACHE": str(tmp_path)}, home, gpu=True)
    with pytest.raises(NoSuchModel, match="nor one of smollm2-135m"):
        choose("nonsense", {}, home, gpu=False)


def test_what_fetch_staged_is_served_by_any_of_its_names(home: Home) -> None:
    folder = home.cache / "models" / "deepseek-r1-distill-qwen-7b"
    with pytest.raises(NoSuchModel, match="`headrace fetch deepseek-r1-distill-qwen-7b` gets it"):
        choose("r1-qwen-7b", {"HOME": str(home.root)}, home, gpu=True)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    found = choose("r1-qwen-7b", {"HOME": str(home.root)}, home, gpu=True)
    assert (found.name, found.checkpoint, found.maker) == (folder.name, folder, None)


def test_the_engine_is_set_as_the_planner_says_for_this_machines_gpus(home: Home, recorded: Stack) -> None:
    checkpoint = home.cache / "models" / "gpt-oss-120b"
    checkpoint.mkdir(parents=True)
    (checkpoint / "config.json").write_text('{"max_position_embeddings": 131072}')
    (checkpoint / "manifest.json").write_text('{"source": "a/b@c0ffee", "revision": "c0ffee", "files": {}}')
    choice = choose("gpt-oss-120b", {}, home, gpu=True)
    assert choice.row is not None
    arguments = engine_arguments(choice.row, read_listing(2 * "NVIDIA H100 80GB HBM3, 81559\n"))
    recorded.engine, recorded.checkpoint, recorded.ray = "vllm", str(checkpoint), "127.0.0.2:1"
    write_engine(home, recorded, Secrets.kept_in(home.secrets), choice, arguments)
    written = DeploySettings.model_validate_json(home.engine_config.read_text()).settings
    assert written.vllm is not None
    assert (written.num_gpus, written.vllm.tensor_parallel_size, written.vllm.max_num_batched_tokens) == (
        2,
        2,
        8192,
    )
    assert (written.revision, written.vllm.max_model_len) == ("c0ffee", 131072)


def test_a_model_that_this_machines_gpus_do_not_hold_is_refused(home: Home) -> None:
    with pytest.raises(DoesNotFit, match=r"gpt-oss-120b does not fit on 1 x l4: weights of 60\.8 GiB"):
        engine_arguments(find_model("gpt-oss-120b"), read_listing("NVIDIA L4, 23034\n"))
    assert engine_arguments(find_model("gpt-oss-120b"), ()) == {}


def test_up_says_which_part_has_died(home: Home, recorded: Stack) -> None:
    begin(home, recorded, "store", PATIENT)
    recorded.processes.append(replace(recorded.processes[0], name="gateway", created=1.0))
    recorded.save(home.record)
    with pytest.raises(local.Refused, match=r"not whole \(gateway\)"):
        local._already(local.Wish(), home, None)  # type: ignore[arg-type]
    local.down(home)

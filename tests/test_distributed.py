"""fastopt.torch in several processes: DDP, ZeRO, fully_shard, DTensors; norms, checkpoints, and processes that die.

The processes talk over the loopback by gloo, and meet at a file, so that no port is fixed. What they do is in
in_processes.py, which they alone import.
"""

import multiprocessing
import os
import socket
import subprocess
import sys
import time
from multiprocessing.connection import wait

import pytest

from .documents import ROOT

torch = pytest.importorskip("torch", reason="needs the extra `torch`")
if not torch.distributed.is_available() or not torch.distributed.is_gloo_available():
    pytest.skip("needs a PyTorch with gloo", allow_module_level=True)
if "forkserver" not in multiprocessing.get_all_start_methods():
    pytest.skip("needs processes that fork", allow_module_level=True)

#: How long processes may take together.
SECONDS = 150
#: The loopback, which Linux and macOS call differently, and one thread for each process.
LOOPBACK = next(name for _, name in socket.if_nameindex() if name in ("lo", "lo0"))
ALONE = {"GLOO_SOCKET_IFNAME": LOOPBACK, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
PATHS = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
#: 2 processes always, 4 in CI.
WORLDS = [2, pytest.param(4, marks=pytest.mark.ci)]
worlds = pytest.mark.parametrize("world", WORLDS)


@pytest.fixture(scope="module")
def context():
    """Return where processes come from: one that has imported all that they need, and forks."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload(["tests.in_processes"])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**ALONE, "PYTHONPATH": PATHS}.items():
            patch.setenv(name, value)
        yield made


def begin(*given):
    """Have a process do some work; what it is made of is not imported by the process that tests."""
    os.environ.update(ALONE)
    from . import in_processes

    in_processes.process(*given)


@pytest.fixture
def processes(context, tmp_path):
    """Return a function that has processes do some work, and returns what each returned, or None for one that died."""
    started = []

    def run(world, work, *arguments, may_die=False):
        store, pipes = tmp_path / f"store{len(started)}", []
        for rank in range(world):
            ours, theirs = context.Pipe(duplex=False)
            started.append(context.Process(target=begin, args=(work, rank, world, store, theirs, arguments)))
            started[-1].start()
            theirs.close()
            pipes.append(ours)
        deadline, found, waiting = time.monotonic() + SECONDS, {}, dict(zip(pipes, range(world), strict=True))
        while waiting:
            ready = wait(list(waiting), deadline - time.monotonic())
            assert ready, f"{len(waiting)} of {world} processes are not done after {SECONDS} s"
            for pipe in ready:
                rank = waiting.pop(pipe)
                try:
                    found[rank] = pipe.recv()
                except EOFError:
                    found[rank] = (may_die, None)
        for one in started[-world:]:
            one.join(max(1.0, deadline - time.monotonic()))
            assert one.exitcode is not None
        errors = [said or "a process died" for well, said in found.values() if not well]
        assert not errors, "\n".join(errors)
        return [found[rank][1] for rank in range(world)]

    yield run
    for one in started:
        one.kill()
        one.join()


@worlds
def test_ddp(world, processes):
    processes(world, "train_ddp")


@pytest.mark.parametrize("far", [False, True])
def test_ddp_in_16_bits(far, processes):
    processes(2, "train_ddp_in_16_bits", far)


@worlds
def test_zero(world, processes):
    processes(world, "train_zero")


@worlds
def test_fully_shard(world, processes):
    processes(world, "train_fully_sharded")


@pytest.mark.ci
def test_two_dimensions_of_a_mesh(processes):
    processes(4, "train_in_two_dimensions")


@worlds
def test_norms_are_those_of_all_shards(world, processes):
    processes(world, "take_norms")


def test_unusual_placements(processes):
    processes(2, "meet_the_unusual")


@pytest.mark.ci
def test_a_checkpoint_of_4_processes_is_resumed_by_2(processes, tmp_path):
    """They go on as an unbroken run in one process does, to the bit."""
    processes(4, "save_checkpoints", tmp_path)
    processes(2, "resume_checkpoints", tmp_path)


def test_checkpoints_of_pytorch(processes):
    processes(2, "go_both_ways")


def test_a_process_that_dies_is_an_error_for_the_other(processes):
    """At the next norm, which is not taken; nothing is written."""
    assert processes(2, "die_between_steps", may_die=True) == ["an error", None]


def torchrun(folder, *command, nproc=2):
    """Run a script as ``torchrun`` does; it is an error if that takes long."""
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(nproc)]
    env = os.environ | {"PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1", "PYTHONPATH": PATHS, **ALONE}
    return subprocess.run(
        [*start, *map(str, command)], check=False, capture_output=True, text=True, timeout=SECONDS, env=env, cwd=folder
    )


def losses(done):
    assert done.returncode == 0, done.stderr
    return [float(line.rpartition(" ")[2]) for line in done.stdout.splitlines() if "loss" in line]


@pytest.mark.ci
@pytest.mark.parametrize("name", ["ddp", "zero"])
def test_an_example(name, tmp_path):
    first, last = losses(torchrun(tmp_path, ROOT / "examples" / f"{name}.py", "--steps", 12))
    assert last < first / 2


DYING = """
import os, runpy, signal, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
steps = []
def die(*given):
    steps.append(given)
    if os.environ["RANK"] == "1" and len(steps) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
register_optimizer_step_post_hook(die)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.ci
def test_the_example_with_a_checkpoint_ends_when_a_process_dies(tmp_path):
    script = ROOT / "examples" / "fsdp2.py"
    _, last = losses(torchrun(tmp_path, script, "--steps", 12, "--save", "folder", nproc=1))
    (tmp_path / "dying.py").write_text(DYING, encoding="utf-8")
    done = torchrun(tmp_path, "dying.py", script, "--steps", 1000000, "--load", "folder")
    assert done.returncode != 0
    assert "SIGKILL" in done.stderr
    assert float(done.stdout.rpartition(" ")[2]) < 2 * last


def test_import_leaves_the_rest_of_pytorch_alone(run_script):
    out = run_script("""
    import sys, torch
    before = {*sys.modules}
    import fastopt.torch
    print(sorted(name for name in {*sys.modules} - before if name.startswith("torch.distributed")))
    """)
    assert out == "[]"

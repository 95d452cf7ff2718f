"""Where arms are trained changes nothing: slots, arm workers, a cluster that loses a node."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster
from search_process import SPEC, Place, kill, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(480)]

ALL_CLIMB = SPEC.replace("scheduler: asha", "scheduler: none, sampler: random").replace(
    "reduction_factor: 2, ", ""
)
"""The same candidates whoever ends first, all to the last rung."""
TWO_SLOTS = ALL_CLIMB.replace("resources: {", "resources: {concurrent_trials: 2, ")


@pytest.fixture(scope="module")
def one_slot(tmp_path_factory):
    place = Place(tmp_path_factory.mktemp("one"), ALL_CLIMB)
    assert place.search().wait() == 0, place.output()
    return place


WITH_ARM_WORKERS = ALL_CLIMB.replace("resources: {", "resources: {arms_at_once: 2, ")


def arm_workers_of(process):
    """Process ids of a search's arm workers, by the name that Ray gives them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        with contextlib.suppress(OSError):
            if os.getsid(pid) == process.pid and path.read_bytes().startswith(b"ray::ArmWorker"):
                found.append(pid)
    return found


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def same_arms(place, other):
    assert place.evaluations().keys() == other.evaluations().keys()
    return place.report()["trials"] == other.report()["trials"]


def test_two_slots_find_what_one_finds(one_slot, tmp_path):
    place = Place(tmp_path, TWO_SLOTS)
    assert place.search().wait() == 0, place.output()
    assert same_arms(place, one_slot)


def test_arm_workers_change_nothing_nor_does_the_death_of_one(one_slot, tmp_path):
    place = Place(tmp_path, WITH_ARM_WORKERS)
    process = place.search()
    assert wait_until(lambda: arm_workers_of(process) and len(place.evaluations()) > 8, process)
    (arm_worker,) = arm_workers_of(process)
    os.kill(arm_worker, signal.SIGKILL)
    assert process.wait() == 0, place.output()
    assert same_arms(place, one_slot)


def test_a_search_with_arm_workers_that_is_killed_ends_with_the_same_table(one_slot, tmp_path):
    place = Place(tmp_path, WITH_ARM_WORKERS)
    process = place.search()
    assert wait_until(lambda: arm_workers_of(process) and len(place.evaluations()) > 8, process)
    kill(process)
    assert place.resume().wait() == 0, place.output()
    assert same_arms(place, one_slot)


def test_a_cluster_that_loses_a_node_ends_with_the_same_table(one_slot, tmp_path, monkeypatch):
    place = Place(tmp_path, TWO_SLOTS)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        node = cluster.add_node(num_cpus=1)
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        process = place.search()
        # Each node trains a trial of its own by now.
        assert wait_until(lambda: len(place.workers()) == 2 < len(place.evaluations()), process)
        workers = place.workers()
        cluster.remove_node(node, allow_graceful=False)
        assert wait_until(lambda: not all(map(alive, workers)), process)
        assert process.wait() == 0, place.output()
    finally:
        cluster.shutdown()
    assert same_arms(place, one_slot)
    states = {trial["state"] for trial in place.report()["trials"]}
    assert states == {"completed"}


NICENESS = """if True:
    import os, sys
    from pathlib import Path
    import ray
    from fstune.search.cluster import start_ray, stop_ray
    from fstune.specs.loading import load
    start_ray(load(Path(sys.argv[1])).spec)
    print(os.nice(0), ray.get(ray.remote(lambda: os.nice(0)).remote()))
    stop_ray()
"""


def test_workers_are_no_nicer_than_the_search(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(SPEC)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-c", NICENESS, str(path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    own, of_worker = done.stdout.split()
    assert own == of_worker


COLLECTING = """if True:
    import gc, threading, time
    import ray
    from fstune.search.cluster import stop_ray
    ray.init(address="local", include_dashboard=False, num_cpus=1, object_store_memory=80 * 2**20)
    held, over = [], threading.Event()
    for number in range(3000):
        cycle = {"ref": ray.put(number)}
        cycle["itself"] = cycle
        held.append(cycle)
    del cycle
    def let_go():
        while held and not over.wait(0.0005):
            held.pop()
    def work():
        while not over.is_set():
            [{"many": [number]} for number in range(5000)]
    threads = [threading.Thread(target=act) for act in (let_go, work)]
    for thread in threads:
        thread.start()
    stop_ray()
    over.set()
    print("alive", flush=True)
"""


def test_what_other_threads_throw_away_while_ray_goes_down_does_not_end_the_process():
    command = [sys.executable, "-c", COLLECTING]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr

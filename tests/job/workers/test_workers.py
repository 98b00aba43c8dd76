"""Parts of a job on workers: a search and a scan have the results of those in turn, whatever becomes of a worker."""

import os
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest

import onnxprune
from onnxprune.config.settings import PruneConfig
from onnxprune.errors import DataError, MissingPackageError, SettingError, WorkerError
from onnxprune.job.search.frontier import Frontier
from onnxprune.job.workers.hiring import hired
from onnxprune.system import packages
from tests.builders import cnn, mlp, normal
from tests.job import parts
from tests.job.search.test_search import outputs, without_time

LONG = bool(os.environ.get("ONNXPRUNE_LONG"))
SEARCH = {
    "max_drop": 0.1,
    "epochs": 4,
    "batch_size": 50,
    "learning_rate": 1e-2,
    "warmup": 5,
    "allocation": "global",
    "loss": "tests.job.parts:deadly",
    "data": "data.npz",
    "frontier": "trials",
}


@pytest.fixture(scope="module")
def two():
    """Two workers of this machine; all tests of the module share them, since Ray takes seconds to start."""
    pytest.importorskip("ray")
    with hired(2) as found:
        yield found


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder, report and files of a search in turn."""
    folder = tmp_path_factory.mktemp("in-turn")
    x = normal(400, 8, seed=5)
    onnx.save(mlp(8, 32), folder / "in.onnx")
    np.savez(folder / "data.npz", x=x, labels=outputs(folder / "in.onnx", x).argmax(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report = onnxprune.prune("in.onnx", "out.onnx", **SEARCH).report
    return folder, report, contents(folder)


@pytest.fixture
def folder(searched, tmp_path, monkeypatch):
    """A folder with the model and the data, as working folder: the files of a search name no other paths."""
    for name in ("in.onnx", "data.npz"):
        (tmp_path / name).write_bytes((searched[0] / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    """The models that a search has written: the files of the trials on the frontier, and the result without times."""
    found = {file.name: file.read_bytes() for file in folder.glob("trials/*.onnx")}
    result = onnx.load(folder / "out.onnx")
    del result.metadata_props[:]
    return found | {"out.onnx": result.SerializeToString()}


def in_turn(part, shared, items):
    with hired(1) as found:
        return found.perform(part, shared, items, silent)


def silent(stage, fraction):
    pass


def test_in_turn_no_part_is_begun_before_its_outcome_is_asked_for():
    begun = []
    outcomes = in_turn(lambda shared, item, progress: begun.append(item) or shared + item, 10, range(3))
    assert next(outcomes) == 10 and begun == [0]
    assert list(outcomes) == [11, 12]


@pytest.mark.parametrize("place", [0, -1, 1.5, True, "", "two", "ray://", "ray://host", "http://host:1"])
def test_what_is_neither_a_number_nor_a_cluster_is_refused(place):
    with pytest.raises(SettingError, match=r"--workers is .*: give a number of processes"):
        PruneConfig(max_drop=0.1, data="a.npz", workers=place)


def test_workers_without_a_search_are_refused():
    with pytest.raises(SettingError, match="--workers is for the trials of a search: use it with --max-drop"):
        PruneConfig(rate=0.5, workers=2)


def test_without_ray_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"--workers needs Ray.*pip install 'onnxprune\[workers\]'"):
        onnxprune.sensitivity(cnn(), {"x": normal(8, 1, 8, 8)}, workers=2)


def test_outcomes_come_in_order_though_later_parts_end_first(two):
    done = []
    assert list(two.perform(parts.double, 10, range(4), lambda stage, fraction: done.append(fraction))) == [
        0,
        10,
        20,
        30,
    ]
    assert done == [0.25, 0.5, 0.75, 1.0]


def test_a_part_whose_worker_is_lost_is_performed_again(two, tmp_path):
    assert list(two.perform(parts.die_once, tmp_path, range(3), silent)) == [1, 2, 1]


def test_a_part_that_costs_every_worker_is_given_up(two):
    with pytest.raises(WorkerError, match="a worker was lost 3 times at the same part"):
        list(two.perform(parts.die, None, [0], silent))


def test_what_a_part_refuses_comes_in_its_place_and_as_itself(two):
    outcomes = two.perform(parts.refuse, None, range(3), silent)
    assert next(outcomes) == 0
    with pytest.raises(SettingError, match=r"^the second one is refused$"):
        next(outcomes)


def test_parts_that_are_not_needed_are_stopped(two, tmp_path):
    with closing(two.perform(parts.linger, tmp_path, range(2), silent)) as outcomes:
        assert next(outcomes) == 0
        while not (process := tmp_path / "process-1").exists() or not process.read_text():
            time.sleep(0.01)
    for _ in range(1000):
        if not alive(int(process.read_text())):
            return
        time.sleep(0.01)
    pytest.fail("the part goes on")


def alive(process):
    try:
        # A process that has ended may wait for its parent.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_what_cannot_be_sent_to_another_process_is_refused(two):
    with pytest.raises(SettingError, match="--workers cannot send the data or the model"):
        list(two.perform(parts.double, (number for number in range(3)), [1], silent))


def test_a_search_has_the_files_of_one_in_turn_though_a_worker_is_killed(two, searched, folder):
    _, report, files = searched

    def progress(stage, fraction):
        # In the first round of several trials, while others are at work.
        if stage == "2 at once" and fraction < 0.5:
            parts.BOMB.touch()

    found = onnxprune.prune("in.onnx", "out.onnx", progress, workers=2, **SEARCH).report
    assert not parts.BOMB.exists()
    assert without_time(found.trials) == without_time(report.trials)
    assert contents(folder) == files


@pytest.mark.skipif(not LONG, reason="takes long: set ONNXPRUNE_LONG=1")
def test_a_search_on_workers_that_is_interrupted_resumes_to_the_same_files(two, searched, folder):
    _, report, files = searched

    def interrupt(stage, fraction):
        if stage == "2 at once":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onnxprune.prune("in.onnx", "out.onnx", interrupt, workers=2, **SEARCH)
    assert not (folder / "out.onnx").exists()
    recorded = Frontier.read(folder / "trials").trials
    assert 0 < len(recorded) < len(report.trials)
    found = onnxprune.prune("in.onnx", "out.onnx", workers=2, resume=True, **SEARCH).report
    assert without_time(found.trials) == without_time(report.trials)
    assert contents(folder) == files


def test_a_scan_has_the_numbers_of_one_in_turn_and_resumes(two, tmp_path):
    data = {"x": normal(40, 1, 8, 8), "labels": np.arange(40) % 4}
    state = tmp_path / "scan.json"
    expected = onnxprune.sensitivity(cnn(), data)

    def interrupt(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        onnxprune.sensitivity(cnn(), data, workers=2, state=state, progress=interrupt)
    found = onnxprune.sensitivity(cnn(), data, workers=2, state=state)
    assert found == expected and list(found.layers) == list(expected.layers)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of two nodes of one worker each, reached over loopback as any other would be."""
    if not LONG:
        pytest.skip("ONNXPRUNE_LONG=1 runs it")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    port = 20_000 + os.getpid() % 10_000
    head = {"num_cpus": 1, "ray_client_server_port": port, "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    found.address_of_clients = f"ray://127.0.0.1:{port}"
    found.add_node(num_cpus=1)
    yield found
    found.shutdown()


def test_a_search_on_a_cluster_has_the_files_of_one_in_turn_though_a_node_is_lost(cluster, searched, folder):
    _, report, files = searched
    lost = []

    def progress(stage, fraction):
        # In the first round of several trials: the other node is at work.
        if stage == "2 at once" and not lost:
            lost.append(cluster.worker_nodes.copy().pop())
            cluster.remove_node(lost[0], allow_graceful=False)

    found = onnxprune.prune(
        "in.onnx", "out.onnx", progress, workers=cluster.address_of_clients, **SEARCH
    ).report
    assert lost
    assert without_time(found.trials) == without_time(report.trials)
    assert contents(folder) == files


def test_a_scan_on_a_cluster_has_the_numbers_of_one_in_turn(cluster):
    data = {"x": normal(40, 1, 8, 8), "labels": np.arange(40) % 4}
    found = onnxprune.sensitivity(cnn(), data, workers=cluster.address_of_clients)
    assert found == onnxprune.sensitivity(cnn(), data)


def test_data_that_a_node_does_not_have_is_refused_with_its_name(cluster):
    with (
        hired(cluster.address_of_clients) as found,
        pytest.raises(
            DataError, match=r"no data file x.npz \(on the node .*: files of data must have the same"
        ),
    ):
        list(found.perform(parts.refuse_data, None, [0], silent))


def test_a_sweep_on_workers_has_the_results_and_bytes_of_one_in_turn(two, folder):
    grid = {"rate": [0.5, 0.8], "epochs": 2, "batch_size": 50, "loss": ["auto", "tests.job.parts:deadly"]}
    # Rehearsals of the workers are not those of this process.
    grid |= {"allocation": "uniform", "learning_rate": 1e-3}
    found = {}
    for place in (1, 2):
        swept = onnxprune.sweep(
            "in.onnx", grid=grid, seeds=2, data="data.npz", folder=str(place), workers=place
        )
        found[place] = [each.to_dict() | {"seconds": 0} for each in swept.combinations]
        found[place].append({file.name: file.read_bytes() for file in Path(str(place)).glob("*.onnx")})
    assert found[1] == found[2] and len(found[2][-1]) == 8

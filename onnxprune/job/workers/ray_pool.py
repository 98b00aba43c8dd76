"""Workers on Ray: processes on this machine, or on the nodes of a cluster.

A part whose worker is lost (killed, out of memory, or its node is gone) is performed again, on another one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from importlib import metadata
from typing import Any, TypeVar

from onnxprune.config.workers import ANY_CLUSTER
from onnxprune.errors import DataError, OnnxPruneError, SettingError, WorkerError, first_line
from onnxprune.job.workers.pool import Part
from onnxprune.system.cores import allowed_cores
from onnxprune.system.packages import require_package
from onnxprune.system.progress import StageProgress
from onnxprune.system.trust import Trust, trust, trusted

Item = TypeVar("Item")
Shared = TypeVar("Shared")
Outcome = TypeVar("Outcome")

# A part that has cost so many workers is not the victim but the cause.
MOST_LOSSES = 3
# Time that cancelled parts have to end: until then they may still write files.
CANCEL_SECONDS = 10.0
# OpenMP's threads wait without computing: those of several workers share the cores. Twice as many threads as cores
# take a tenth longer so, instead of twice as long.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
THREAD_COUNTS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@contextlib.contextmanager
def ray_workers(place: int | str, device: str) -> Iterator[RayWorkers]:
    """`place`: a number of processes, or the address of a cluster; see `onnxprune.job.workers.hiring.hired`."""
    require_package("ray", "--workers")
    # Read when Ray is imported, and by the processes that it starts.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    # A program that uses Ray itself may be connected already.
    connects = not ray.is_initialized()
    if connects:
        _connect(ray, place)
    try:
        if isinstance(place, str):
            _check_version(ray)
        yield RayWorkers(ray, place, device)
    finally:
        if connects:
            ray.shutdown()


class RayWorkers:
    """See `onnxprune.job.workers.pool.Workers`."""

    def __init__(self, ray: Any, place: int | str, device: str):
        self._ray = ray
        self.here = isinstance(place, int)
        resources = ray.cluster_resources()
        self.count = place if isinstance(place, int) else max(1, int(resources.get("CPU", 1)))
        threads = {name: os.environ[name] for name in THREAD_COUNTS if name in os.environ}
        # Ray itself would set it to 1. Bits of a result depend on it: so it is that of this process.
        environment = WAITING | {"OMP_NUM_THREADS": str(allowed_cores())} | threads
        self._remote = ray.remote(
            num_cpus=1,
            num_gpus=self._gpus(resources.get("GPU", 0)) if device.startswith("cuda") else 0,
            # Lost parts are counted and started again here: Ray would start those without memory again forever.
            max_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": environment},
        )(_perform)

    def perform(
        self,
        part: Part[Shared, Item, Outcome],
        shared: Shared,
        items: Sequence[Item],
        progress: StageProgress,
        arrived: Callable[[Outcome], None] = lambda outcome: None,
    ) -> Generator[Outcome]:
        """See `onnxprune.job.workers.pool.Workers`; `progress` is told how many of the items are done."""
        common = self._put(shared)
        origin = (metadata.version("onnxprune"), os.getcwd(), self.here, trusted())
        waiting = list(range(len(items)))
        running: dict[Any, int] = {}
        losses: Counter[int] = Counter()
        found: dict[int, Any] = {}
        stage = f"{min(self.count, len(items))} at once"
        try:
            for turn in range(len(items)):
                while turn not in found:
                    while waiting and len(running) < self.count:
                        index = waiting.pop(0)
                        running[self._remote.remote(origin, part, common, items[index])] = index
                    (done, *_), _ = self._ray.wait(list(running), num_returns=1)
                    index = running.pop(done)
                    try:
                        outcome = self._ray.get(done)
                    except self._lost() as error:
                        losses[index] += 1
                        if losses[index] < MOST_LOSSES:
                            waiting.insert(0, index)
                            continue
                        outcome = _gave_up(error)
                    if not isinstance(outcome, OnnxPruneError):
                        arrived(outcome)
                    found[index] = outcome
                    progress(stage, len(found) / len(items))
                outcome = found[turn]
                if isinstance(outcome, OnnxPruneError):
                    raise outcome
                found[turn] = None
                yield outcome
        except ConnectionError as error:
            raise WorkerError(
                f"the Ray cluster is gone: {first_line(error)}; start it again, and go on with --resume"
            ) from None
        finally:
            with contextlib.suppress(ConnectionError):
                self._cancel(list(running))

    def _put(self, shared: Any) -> Any:
        try:
            return self._ray.put(shared)
        except (TypeError, AttributeError, ValueError) as error:
            raise SettingError(
                f"--workers cannot send the data or the model to other processes: {first_line(error)}; give them as "
                "paths or arrays, or --workers 1"
            ) from None

    def _gpus(self, available: float) -> float:
        """The GPUs of a worker: workers on one machine share them, if there are fewer than workers."""
        if not available:
            raise SettingError("--workers: there is no GPU for --device cuda: give --device cpu")
        return min(1.0, available / self.count) if self.here else 1.0

    def _lost(self) -> tuple[type[Exception], ...]:
        errors = self._ray.exceptions
        return (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.LocalRayletDiedError,
            errors.OutOfMemoryError,
            # The outcome was lost after the worker had finished.
            errors.ObjectLostError,
        )

    def _cancel(self, running: list[Any]) -> None:
        """Stop parts whose outcomes are not needed, and wait until they no longer run."""
        if not running:
            return
        for reference in running:
            self._ray.cancel(reference, force=True)
        self._ray.wait(running, num_returns=len(running), timeout=CANCEL_SECONDS)


def _perform(origin: tuple[str, str, bool, Trust], part: Callable[..., Any], shared: Any, item: Any) -> Any:
    """A part, in a worker; an OnnxPruneError is its outcome, as Ray would change the type of what it raises.

    `origin`: the version of onnxprune and the folder where the job was started, whether that is this machine, and what
    the job trusts.
    """
    version, folder, here, job_trusts = origin
    if version != (installed := metadata.version("onnxprune")):
        return _other_version(installed, version)
    # Paths of data may be relative.
    with contextlib.suppress(OSError):
        os.chdir(folder)
    try:
        trust(job_trusts.folders, job_trusts.libraries)
        return part(shared, item, _silent)
    except DataError as error:
        if here:
            return error
        return DataError(
            f"{error} (on the node {socket.gethostname()}: files of data must have the same path on every node)"
        )
    except OnnxPruneError as error:
        return error


def _silent(stage: str, fraction: float) -> None:
    """Ignore the progress."""


def _connect(ray: Any, place: int | str) -> None:
    with _keeping_terminations():
        _start(ray, place)


@contextlib.contextmanager
def _keeping_terminations() -> Iterator[None]:
    """Keep what a termination does: Ray would have it print a stack trace and abort, which leaves working folders."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _start(ray: Any, place: int | str) -> None:
    quiet = {"logging_level": "error", "log_to_driver": False}
    if isinstance(place, int):
        # Without an address, RAY_ADDRESS would be used.
        ray.init("local", num_cpus=place, include_dashboard=False, **quiet)
        return
    address = os.environ.get("RAY_ADDRESS", "auto") if place == ANY_CLUSTER else place
    try:
        ray.init(address, **quiet)
    except Exception as error:
        raise SettingError(
            f"--workers {place} cannot be reached: {first_line(error)}; give the address of a Ray cluster with the "
            "same versions of Python and Ray, or a number of processes on this machine"
        ) from None


def _check_version(ray: Any) -> None:
    """Check that the nodes have this version of onnxprune, before any work.

    Raises:
        SettingError: another one, or none.
    """
    own = metadata.version("onnxprune")
    try:
        # A function of the standard library, which a node has in any case.
        found = ray.get(ray.remote(metadata.version).remote("onnxprune"))
    except metadata.PackageNotFoundError:
        raise SettingError(
            f"the nodes of --workers have no onnxprune: install {own} on each of them"
        ) from None
    if found != own:
        raise _other_version(found, own)


def _other_version(found: str, own: str) -> SettingError:
    return SettingError(
        f"a node of --workers has onnxprune {found}, this machine has {own}: install the same version on every node"
    )


def _gave_up(error: Exception) -> WorkerError:
    kind = type(error).__name__
    memory = "its memory ran out" if kind == "OutOfMemoryError" else f"the last time: {kind}"
    return WorkerError(
        f"a worker was lost {MOST_LOSSES} times at the same part of the job ({memory}): give fewer --workers or a "
        "smaller --batch-size, and go on with --resume"
    )

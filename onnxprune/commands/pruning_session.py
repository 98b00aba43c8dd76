"""`onnxprune.pruning_session`: pruning inside your own training loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from onnxprune.commands.keywords import with_signature
from onnxprune.config.settings import PruneConfig, job_settings
from onnxprune.errors import SettingError
from onnxprune.job.choices.defaults import by_rule
from onnxprune.job.choices.rounding import rounded
from onnxprune.job.pruners.pruner import make_pruner, usable_weights
from onnxprune.job.requirements import check_requirements
from onnxprune.model.files.io import ModelLike
from onnxprune.pruning.criteria import find_criterion
from onnxprune.pruning.schedule import make_schedule
from onnxprune.sparse.opening import open_model
from onnxprune.system.packages import require_package
from onnxprune.system.trust import trust

if TYPE_CHECKING:
    from onnxprune.training.session import PruningSession

Settings = ParamSpec("Settings")


class SessionMaker(Protocol[Settings]):
    """The type of `pruning_session`: its keywords are those of `PruneConfig`."""

    def __call__(
        self, model: ModelLike, updates: int, *args: Settings.args, **settings: Settings.kwargs
    ) -> PruningSession: ...


def _takes(
    settings: Callable[Settings, Any],
) -> Callable[[Callable[..., PruningSession]], SessionMaker[Settings]]:
    def decorate(function: Callable[..., PruningSession]) -> SessionMaker[Settings]:
        return with_signature(function, settings)

    return decorate


@_takes(PruneConfig)
def pruning_session(model: ModelLike, updates: int, **settings: Any) -> PruningSession:
    """A model as a torch module that is pruned on a schedule while your own loop trains it.

    Call `session.step()` after every step of the optimizer, and at the end `session.finish()`, which returns the pruned
    ModelProto. `updates`: the number of optimizer steps of the training. The settings are the fields of `PruneConfig`
    for pruning and its schedule: `rate`, `allocation`, `schedule` and so on.

    Raises:
        OnnxPruneError: what is wrong, and how to fix it.
    """
    require_package("torch", "a pruning session")
    from onnxprune.training.session import PruningSession

    config = job_settings(**settings)
    config = by_rule(config, None)
    check_requirements(config)
    if config.rate is None and config.std_threshold is None:
        raise SettingError(
            "a session prunes to one rate: give rate or std_threshold, or use onnxprune.prune, which can also search "
            "for the rate and reach flops, latency or bytes"
        )
    if find_criterion(config.criterion).needs != "weights":
        raise SettingError(
            f"a session has no data for criterion {config.criterion}: use magnitude, or onnxprune.prune"
        )
    if config.restore_norms == "always":
        raise SettingError(
            "a session has no data to measure norms on: leave restore_norms out, or use onnxprune.prune"
        )
    if updates < 1:
        raise SettingError(f"updates is {updates}: it must be 1 or more")
    trust(config.allow_links, config.custom_ops)
    opened = open_model(model)
    weights = usable_weights(opened.model, opened.origin.name, config).prunable
    config, _, groups, _ = rounded(opened.model, weights, config)
    pruner = make_pruner(opened.model, weights, config, groups=groups)
    schedule = make_schedule(config, updates, pruner.families)
    session = PruningSession(opened.model, pruner, schedule, config)
    session.start()
    return session

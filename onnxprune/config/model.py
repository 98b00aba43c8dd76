"""Settings of the input model: what else is needed to read and to run it."""

from __future__ import annotations

from dataclasses import dataclass

from onnxprune.config.declare import setting
from onnxprune.system.trust import Paths


@dataclass(frozen=True)
class ModelSettings:
    """Where links of the model may lead, and libraries of its operators."""

    heading = "Model"

    allow_links: Paths = setting(
        (),
        "Read external data also where links lead into this folder. Without it, links may lead only inside of the "
        "model's own folder, or of the model's folder in the cache of Hugging Face. Repeatable.",
        metavar="FOLDER",
        trains=False,
    )
    custom_ops: Paths = setting(
        (),
        "A shared library of custom operators for onnxruntime, which every session registers. Give only one that you "
        "trust: its code runs. Repeatable.",
        metavar="LIBRARY",
        trains=False,
    )

"""A pass of Olive: `olive run --config RECIPE.json --package-config PACKAGE.json`.

`python -m onnxprune.plugins.olive PACKAGE.json` writes the package file, which is Olive's own with this pass added.
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from olive.hardware import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.model.utils import resolve_onnx_path
from olive.package_config import OlivePackageConfig
from olive.passes import Pass
from olive.passes.pass_config import PassConfigParam
from olive.search.search_parameter import Categorical

from onnxprune.commands.prune import prune
from onnxprune.config.settings import PruneConfig

NAME = "OnnxPrune"
# What a search of Olive tries where the recipe gives no rate.
RATES = (0.5, 0.7, 0.8, 0.9)
# The passes that may follow read plain nodes.
FORMAT = "dense"
# Of each setting as JSON has it; onnxprune itself says what is wrong with a value.
SETTING = bool | int | float | str | list[Any] | dict[str, Any]
PACKAGE = {
    "module_path": f"onnxprune.plugins.olive.{NAME}",
    "supported_providers": ["*"],
    "supported_accelerators": ["*"],
    "supported_precisions": ["*"],
    "supported_algorithms": [],
    "supported_quantization_encodings": [],
    "dataset": "dataset_optional",
}


class OnnxPrune(Pass):
    """Prune an ONNX model by magnitude, and fine-tune it where `data` is given.

    Parameters are the settings of `onnxprune.prune`; those without a value are chosen by onnxprune.
    """

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        settings = {
            each.name: PassConfigParam(type_=SETTING, default_value=None, description=each.metadata["help"])
            for each in fields(PruneConfig)
        }
        settings["rate"].search_defaults = Categorical(list(RATES))
        settings["format"].default_value = FORMAT
        return settings

    def _run_for_config(
        self, model: ONNXModelHandler, config: Any, output_model_path: str
    ) -> ONNXModelHandler:
        path = Path(resolve_onnx_path(output_model_path))
        names = {each.name for each in fields(PruneConfig)}
        given = {name: value for name, value in dict(config).items() if name in names and value is not None}
        prune(model.model_path, path, **given)
        if path.with_name(f"{path.name}.data").exists():
            return ONNXModelHandler(model_path=path.parent, onnx_file_name=path.name)
        return ONNXModelHandler(model_path=path)


def package() -> dict[str, Any]:
    """The default package configuration of Olive with this pass."""
    content = json.loads(Path(OlivePackageConfig.get_default_config_path()).read_text())
    content["passes"][NAME] = PACKAGE
    return content


def main() -> None:
    """Write the package file that is named on the command line."""
    if len(sys.argv) != 2:
        sys.exit("give the file to write: python -m onnxprune.plugins.olive package.json")
    Path(sys.argv[1]).write_text(json.dumps(package(), indent=2) + "\n")


if __name__ == "__main__":
    main()

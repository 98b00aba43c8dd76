"""`optimum-cli onnxprune`, the command line of onnxprune as a command of optimum.

`python -m onnxprune.plugins.optimum` registers it: optimum looks for files in its folder `commands/register`.
"""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser
from importlib.util import find_spec
from pathlib import Path

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo

REGISTRATION = """\
from onnxprune.plugins.optimum import OnnxPruneCommand

REGISTER_COMMANDS = [OnnxPruneCommand]
"""


class OnnxPruneCommand(BaseOptimumCLICommand):
    """Everything behind `optimum-cli onnxprune` goes to `onnxprune`."""

    COMMAND = CommandInfo("onnxprune", "Prune ONNX models, and make them fast: see `onnxprune --help`.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Take all arguments as they are."""
        parser.add_argument("words", nargs=REMAINDER, help="arguments of onnxprune")

    def run(self) -> None:
        """Run onnxprune; it ends the process."""
        from onnxprune.cli import main

        main(self.args.words)


def register() -> Path:
    """Write the file that optimum finds the command by."""
    commands = find_spec("optimum.commands")
    assert commands is not None and commands.submodule_search_locations is not None
    folder = Path(next(iter(commands.submodule_search_locations))) / "register"
    folder.mkdir(exist_ok=True)
    file = folder / "register_onnxprune.py"
    file.write_text(REGISTRATION)
    return file


if __name__ == "__main__":
    print(f"optimum-cli onnxprune is registered by {register()}")

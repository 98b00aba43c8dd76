"""The command line: flags, terminal and tables; nothing is decided here."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Sequence

import click

from onnxprune.cli.export import export
from onnxprune.cli.interrupts import stopping_at_once
from onnxprune.cli.jobs import pick, prune, retrain
from onnxprune.cli.models import compare, inspect, report, sensitivity
from onnxprune.cli.overview import overview
from onnxprune.cli.speed import bench, tune
from onnxprune.cli.sweep import sweep
from onnxprune.errors import OnnxPruneError
from onnxprune.model.files.replace import remove_working_folders

STATUS_BAD_INPUT = 2
# Where a file that no stage expects to fail at cannot be written.
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
STATUS_INTERRUPTED = 130
HELP = ("-h", "--help")
INTERRUPTED = "interrupted; the output file was not changed"


COMMANDS = {
    "prune": prune,
    "retrain": retrain,
    "pick": pick,
    "sweep": sweep,
    "inspect": inspect,
    "report": report,
    "sensitivity": sensitivity,
    "compare": compare,
    "export": export,
    "tune": tune,
    "bench": bench,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 worse than allowed, 2 bad input (one line on stderr), 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in HELP:
        click.echo(overview(COMMANDS))
        sys.exit(0)
    named = words[0] in COMMANDS
    name = words.pop(0) if named else "prune"
    # onnx_ir logs a warning for every part of a model that it drops; errors come as exceptions.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        program = f"onnxprune {name}" if named else "onnxprune"
        with stopping_at_once(_interrupted, STATUS_INTERRUPTED):
            COMMANDS[name].main(words, prog_name=program, standalone_mode=False)
    except OnnxPruneError as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        _fail(error.format_message(), error.exit_code)
    except MemoryError:
        _fail(
            "out of memory; the output file was not changed: use a machine with more memory", STATUS_BAD_INPUT
        )
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        _fail(f"{error.strerror}; the output file was not changed: free space on the disk", STATUS_BAD_INPUT)
    except (click.Abort, KeyboardInterrupt):
        _fail(INTERRUPTED, STATUS_INTERRUPTED)


def _interrupted() -> None:
    remove_working_folders()
    click.echo(f"onnxprune: {INTERRUPTED}", err=True)


def _fail(message: str, status: int) -> None:
    click.echo(f"onnxprune: {' '.join(message.split())}", err=True)
    sys.exit(status)

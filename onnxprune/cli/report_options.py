"""What is shown of a job beside the summary, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from onnxprune.cli.tables.job import job_details, job_summary
from onnxprune.cli.tables.trials import trials_table
from onnxprune.cli.terminal import check_writable, console, write, write_json
from onnxprune.reports.record import Report


@dataclass(frozen=True)
class ReportOptions:
    """Where to write the record of a job, and whether to show all of it."""

    json_path: str | None
    html_path: str | None
    verbose: bool

    @staticmethod
    def flags(command: Callable[..., None]) -> Callable[..., None]:
        """Give a command the flags, and what they say as its argument `reporting`."""

        @click.option(
            "--json", "json_path", metavar="FILE", help="Write everything in the summary, and more, as JSON."
        )
        @click.option(
            "--report",
            "html_path",
            metavar="FILE.html",
            help="Write an HTML page with charts and the reasons.",
        )
        @click.option(
            "-v", "--verbose", is_flag=True, help="Also show every epoch and what could not be pruned."
        )
        @wraps(command)
        def with_flags(
            *arguments: Any, json_path: str | None, html_path: str | None, verbose: bool, **others: Any
        ) -> None:
            command(*arguments, reporting=ReportOptions(json_path, html_path, verbose), **others)

        return with_flags

    def check(self) -> None:
        """Refuse before the job, not after it, what cannot be written."""
        check_writable("--json", self.json_path)
        check_writable("--report", self.html_path)

    def show(self, report: Report, source: str, output: str) -> None:
        """Print the summary, and write what is asked for."""
        screen = console()
        if self.verbose:
            screen.print(job_details(report))
        if report.trials:
            screen.print(trials_table(report.trials))
        screen.print(job_summary(report))
        record = report.to_dict()
        if self.html_path is not None:
            from onnxprune.reports.latency import latency
            from onnxprune.reports.page import page

            record["latency"] = latency(Path(source), Path(output), report.sample)
            write("--report", self.html_path, page(record))
        write_json(self.json_path, record)

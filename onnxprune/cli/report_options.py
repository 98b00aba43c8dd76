"""The flags --json, --report, --verbose and --quiet, and the output of a job that they ask for."""

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

quiet_flag = click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")


@dataclass(frozen=True)
class ReportOptions:
    """Where to write the record of a job, and whether to print all or nothing of it."""

    json_path: str | None
    html_path: str | None
    verbose: bool
    quiet: bool

    @staticmethod
    def flags(command: Callable[..., None]) -> Callable[..., None]:
        """Give a command these flags; their values are its argument `reporting`."""

        @click.option("--json", "json_path", metavar="FILE", help="Write the full record of the job as JSON.")
        @click.option(
            "--report",
            "html_path",
            metavar="FILE.html",
            help="Write an HTML report with charts and latency.",
        )
        @click.option(
            "-v", "--verbose", is_flag=True, help="Also print every epoch and what could not be pruned."
        )
        @quiet_flag
        @wraps(command)
        def with_flags(
            *arguments: Any,
            json_path: str | None,
            html_path: str | None,
            verbose: bool,
            quiet: bool,
            **others: Any,
        ) -> None:
            command(*arguments, reporting=ReportOptions(json_path, html_path, verbose, quiet), **others)

        return with_flags

    def check(self) -> None:
        """Check before the job that the files can be written."""
        if self.verbose and self.quiet:
            raise click.UsageError("--verbose and --quiet contradict each other: give one of them")
        check_writable("--json", self.json_path)
        check_writable("--report", self.html_path)

    def show(self, report: Report, source: str, output: str) -> None:
        """Print the summary, and write the files asked for."""
        if not self.quiet:
            self._print(report)
        record = report.to_dict()
        if self.html_path is not None:
            from onnxprune.commands.report import maps_of
            from onnxprune.reports.latency import latency
            from onnxprune.reports.page import page

            record["latency"] = latency(Path(source), Path(output), report.sample)
            write("--report", self.html_path, page(record | {"maps": maps_of(output, record["layers"])}))
        write_json(self.json_path, record)

    def _print(self, report: Report) -> None:
        screen = console()
        if self.verbose:
            screen.print(job_details(report))
        if report.trials:
            screen.print(trials_table(report.trials))
        screen.print(job_summary(report))

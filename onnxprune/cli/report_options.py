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
from onnxprune.evaluation.answers import without_pictures
from onnxprune.reports.record import Report

quiet_flag = click.option("-q", "--quiet", is_flag=True, help="Print only warnings and errors.")


def report_extras(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags of what a report may have beside the record."""
    for option in (
        click.option(
            "--base-model",
            metavar="OWNER/NAME",
            help="Repository of the input model on the Hugging Face Hub, for --model-card.",
        ),
        click.option("--model-card", metavar="CARD.md", help="Write a model card for the Hugging Face Hub."),
        click.option(
            "--watts",
            type=float,
            metavar="W",
            help="Power of one busy core of this machine: the report has the energy of an inference by its CPU time. "
            "Without it, by the processor's energy counters where they can be read.",
        ),
        click.option(
            "--price",
            type=float,
            metavar="P",
            help="Price of an hour of this machine: the report has the cost of a million inferences.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class ReportOptions:
    """Where to write the record of a job and what is in its report, and whether to print all or nothing of it."""

    json_path: str | None
    html_path: str | None
    verbose: bool
    quiet: bool
    price: float | None = None
    watts: float | None = None
    model_card: str | None = None
    base_model: str | None = None

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
        @report_extras
        @click.option(
            "-v",
            "--verbose",
            is_flag=True,
            help="Also print every epoch, every layer, how the weights were found, and what could not be pruned.",
        )
        @quiet_flag
        @wraps(command)
        def with_flags(
            *arguments: Any,
            json_path: str | None,
            html_path: str | None,
            verbose: bool,
            quiet: bool,
            price: float | None,
            watts: float | None,
            model_card: str | None,
            base_model: str | None,
            **others: Any,
        ) -> None:
            reporting = ReportOptions(
                json_path, html_path, verbose, quiet, price, watts, model_card, base_model
            )
            command(*arguments, reporting=reporting, **others)

        return with_flags

    def check(self) -> None:
        """Check before the job that the files can be written."""
        if self.verbose and self.quiet:
            raise click.UsageError("--verbose and --quiet contradict each other: give one of them")
        for flag, value in (("--price", self.price), ("--watts", self.watts)):
            if value is not None and self.html_path is None and self.model_card is None:
                raise click.UsageError(
                    f"{flag} is for a report: give --report FILE.html or --model-card CARD.md"
                )
        if self.base_model is not None and self.model_card is None:
            raise click.UsageError("--base-model is for the model card: give --model-card CARD.md as well")
        if self.price is not None or self.watts is not None:
            from onnxprune.reports.cost import check_price
            from onnxprune.reports.energy import check_watts

            check_price(self.price)
            check_watts(self.watts)
        check_writable("--json", self.json_path)
        check_writable("--report", self.html_path)
        check_writable("--model-card", self.model_card)

    def show(self, report: Report, source: str, output: str) -> None:
        """Print the summary, and write the files asked for."""
        if not self.quiet:
            self._print(report)
        record = report.to_dict()
        if self.html_path is not None or self.model_card is not None:
            from onnxprune.reports.latency import latency

            record["latency"] = latency(Path(source), Path(output), report.sample)
            self._write_reports(record | {"price": self.price, "watts": self.watts}, source, output)
        if record["evaluation"] is not None:
            record["evaluation"] = without_pictures(record["evaluation"])
        write_json(self.json_path, record)

    def _write_reports(self, record: dict[str, Any], source: str, output: str) -> None:
        from onnxprune.commands.report import pictures_of
        from onnxprune.reports.model_card import model_card
        from onnxprune.reports.page import page

        if self.html_path is not None:
            content = page(record | pictures_of(output, source, record["layers"]))
            write("--report", self.html_path, content)
        if self.model_card is not None:
            write("--model-card", self.model_card, model_card(record, self.base_model))

    def _print(self, report: Report) -> None:
        screen = console()
        if self.verbose:
            screen.print(job_details(report))
        if report.trials:
            screen.print(trials_table(report.trials))
        screen.print(job_summary(report, self.verbose))

"""What becomes of the models of onnx.backend.test: python -m tests.benchmarks.backend [KIND ...] [--stride N]

How many give equal outputs at rate 0 and are pruned at rate 0.5, or why not; every refusal goes to stderr.
"""

from __future__ import annotations

import click

from tests.backend import KINDS, counts, outcomes


@click.command()
@click.argument("kinds", nargs=-1, type=click.Choice(KINDS))
@click.option("--stride", default=1, help="Take every so many models.")
def main(kinds: tuple[str, ...], stride: int) -> None:
    print("| models | outcome | count |\n|---|---|---|", flush=True)
    for kind in kinds or KINDS:
        found = dict(outcomes(kind, stride))
        for name, result in found.items():
            if result.startswith(("refused", "wrong")):
                click.echo(f"{name}: {result}", err=True)
        for result, count in counts(found).most_common():
            print(f"| {kind} | {result} | {count:,} |", flush=True)


if __name__ == "__main__":
    main()

"""``ggufext rewrite``: extend the context of model files in place."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ggufext.cli.asked import asked
from ggufext.cli.options import (
    METHOD,
    allow_lower_base_option,
    factors_option,
    follow_option,
    from_option,
    gamma_option,
    json_option,
    keep_short_option,
    paths_argument,
    target_option,
    train_length_option,
)
from ggufext.cli.output import error_as_json, show_error, show_json, show_warnings
from ggufext.cli.plan import plan_as_json, plan_lines
from ggufext.editing.rewrite import rewrite as rewrite_file
from ggufext.editing.strategies import Strategy
from ggufext.errors import GgufextError, printable
from ggufext.planning.methods import Method
from ggufext.planning.run_time import RunTimeMethod, refuse_to_write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ggufext.editing.rewrite import Rewritten


@click.command(short_help="Extend models in place.")
@paths_argument
@target_option
@click.option(
    "--method",
    type=METHOD,
    help="How to extend; gamma without it, or what --from and --factors say.",
)
@gamma_option
@factors_option
@from_option
@keep_short_option
@train_length_option
@allow_lower_base_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write a new file and leave FILE alone.",
)
@click.option("--no-history", is_flag=True, help="Keep nothing for an undo.")
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy]),
    help="Use this way of writing or refuse; the best one is chosen without.",
)
@follow_option
@click.option("--dry-run", is_flag=True, help="Say which bytes would be written; write nothing.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read the result with gguf-py, and llama.cpp where installed, and compare.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Accept an unverified architecture, a factor above 1024, a file in use, an existing "
    "output.",
)
@json_option
def rewrite(
    paths: tuple[Path, ...],
    target_length: int | None,
    method: str | None,
    gamma: float | None,
    factors_path: Path | None,
    result_path: Path | None,
    keep_short: bool,
    train_length: int | None,
    allow_lower_base: bool,
    output: Path | None,
    no_history: bool,
    strategy: str | None,
    follow: bool,
    dry_run: bool,
    verify: bool,
    force: bool,
    as_json: bool,
) -> None:
    """Extend the context of GGUF files in place.

    Several files in one call are independent: one that fails is reported and does not stop the
    others.
    """
    if output is not None and len(paths) > 1:
        raise click.UsageError("--output takes one FILE")
    request = asked(
        method=method,
        target_length=target_length,
        gamma=gamma,
        factors_path=factors_path,
        result_path=result_path,
        keep_short=keep_short,
    )
    chosen = request.method or Method.GAMMA
    if isinstance(chosen, RunTimeMethod):
        raise refuse_to_write(chosen)
    results: list[object] = []
    failures: list[GgufextError] = []
    for path in paths:
        try:
            with copy_progress() as progress:
                done = rewrite_file(
                    path,
                    target_length=request.target_length,
                    method=chosen,
                    gamma=gamma,
                    recipe=request.recipe,
                    keep_short=keep_short,
                    train_length=train_length,
                    allow_lower_base=allow_lower_base,
                    output=output,
                    keep_history=not no_history,
                    strategy=Strategy(strategy) if strategy else None,
                    follow=follow,
                    dry_run=dry_run,
                    force=force,
                    progress=progress,
                )
            checks = _verified(done) if verify and not dry_run else ()
        except (GgufextError, OSError) as error:
            named = _named(error, path)
            if len(paths) == 1:
                raise named from error
            failures.append(named)
            results.append({"path": str(path), **error_as_json(named)})
            continue
        results.append(_as_json(path, done, checks))
        if not as_json:
            _show(path, done, checks, dry_run=dry_run)
    if as_json:
        show_json(results[0] if len(paths) == 1 else {"files": results})
    for failure in failures:
        show_error(failure, as_json=False)
    if failures:
        if not as_json:
            click.echo(f"{len(failures)} of {len(paths)} files were not rewritten", err=True)
        sys.exit(1)


def _named(error: GgufextError | OSError, path: Path) -> GgufextError:
    """The error with the file it belongs to."""
    if isinstance(error, GgufextError):
        error.path = error.path or path
        return error
    return GgufextError(code="os_error", path=path, message=error.strerror or str(error))


def _verified(done: Rewritten) -> tuple[str, ...]:
    from ggufext.audit.verify import verify_file

    return verify_file(done.receipt.output, done.plan)


def _as_json(path: Path, done: Rewritten, checks: tuple[str, ...]) -> dict[str, object]:
    receipt = done.receipt
    shown = plan_as_json(path, done.plan) | {
        "strategy": receipt.strategy.value if receipt.strategy else None,
        "output": str(receipt.output),
        "bytes_written": receipt.bytes_written,
        "ranges": [[r.start, r.end, r.what] for r in receipt.ranges],
        "seconds": receipt.seconds,
        "undo": receipt.undo,
    }
    return shown | ({"verified": list(checks)} if checks else {})


def _show(path: Path, done: Rewritten, checks: tuple[str, ...], *, dry_run: bool) -> None:
    receipt = done.receipt
    for line in plan_lines(path, done.plan):
        click.echo(line)
    if receipt.strategy is None:
        click.echo("  the file already holds this: nothing written")
    elif dry_run:
        click.echo(f"  would write by {receipt.strategy.value}:")
        for part in receipt.ranges:
            click.echo(f"    bytes {part.start:,} to {part.end:,}: {part.what}")
    else:
        click.echo(
            f"  written by {receipt.strategy.value}: {receipt.bytes_written:,} bytes in "
            f"{receipt.seconds:.3f} s"
            + (f" to {printable(str(receipt.output))}" if receipt.output != path else "")
        )
        if receipt.undo:
            click.echo(f"  undo with: {printable(receipt.undo)}")
    for check in checks:
        click.echo(f"  verified: {check}")
    show_warnings(done.plan.warnings, path)


@contextmanager
def copy_progress() -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, from the first report of a copy on."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    bar = Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    task = bar.add_task("copying", total=None, visible=False)

    def report(done: int, total: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=total, visible=True)

    try:
        yield report
    finally:
        bar.stop()

"""``ggufext rewrite``, ``undo`` and ``recover``: what changes files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufext.api import edits, sentences
from ggufext.api.edits import State, Strategy
from ggufext.api.plans import RunTimeMethod
from ggufext.cli.options import (
    follow_option,
    json_option,
    llama_cpp_option,
    path_argument,
    paths_argument,
)
from ggufext.cli.output import (
    IN_USE,
    FileCommand,
    handle_files,
    show_json,
    show_note,
    show_warnings,
)
from ggufext.cli.planning import asked, plan_options
from ggufext.cli.waiting import Told
from ggufext.errors import GgufextError, PlanError, command, printable, shell_word, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.api.edits import Receipt, Rewritten, Undone
    from ggufext.cli.waiting import Wait

    #: A rewrite, and what --verify compared.
    _Outcome = tuple[Rewritten, tuple[str, ...]]


_RUN_TIME = {
    RunTimeMethod.DYNAMIC: "dynamic changes the base with the length of the context, which no "
    "file can hold; `{planning}` gives the base for each length, for llama.cpp's "
    "--rope-freq-base; to write one base, use --method ntk or gamma",
    RunTimeMethod.SELF_EXTEND: "self-extend changes positions while the model runs, which no file "
    "can hold; `{planning}` gives llama.cpp's --grp-attn-n and --grp-attn-w, and how to measure it",
}


@click.command(short_help="Extend models in place.")
@paths_argument
@plan_options(method_help="How to extend; gamma without it, or what --recipe says.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write a new file and leave FILE alone.",
)
@click.option(
    "--no-history", is_flag=True, help="Keep nothing for an undo, of earlier edits neither."
)
@click.option(
    "--strategy",
    type=click.Choice([strategy.value for strategy in Strategy], case_sensitive=False),
    help="Use this way of writing or refuse; the best one is chosen without.",
)
@follow_option
@click.option("--dry-run", is_flag=True, help="Say which bytes would be written; write nothing.")
@click.option(
    "--verify",
    is_flag=True,
    help="Read the result with llama.cpp, without it with gguf-py, and compare.",
)
@llama_cpp_option
@click.option(
    "--force",
    is_flag=True,
    help="Accept an unverified architecture, a factor above 1024, a method that changes "
    "sliding-window layers, a file in use (a new one takes its place), an existing output.",
)
@json_option
def rewrite(
    paths: tuple[Path | str, ...],
    output: Path | None,
    no_history: bool,
    strategy: str | None,
    follow: bool,
    dry_run: bool,
    verify: bool,
    llama_cpp: Path | None,
    force: bool,
    as_json: bool,
    **wished: Any,
) -> None:
    """Extend the context of GGUF files in place.

    Several files in one call are independent: one that fails is reported and does not stop the
    others.
    """
    if output is not None and len(set(paths)) > 1:
        raise click.UsageError("--output takes one FILE")
    if llama_cpp is not None and not verify:
        raise click.UsageError("--llama-cpp belongs to --verify")
    named, request = asked(force=force, **wished)
    if isinstance(named, RunTimeMethod):
        target = str(request.target_length)
        planning = command("plan", paths[0], "--target", target, "--method", named.value)
        raise PlanError(code="run_time_method", message=_RUN_TIME[named].format(planning=planning))
    if llama_cpp is not None:
        edits.try_llama_cpp(llama_cpp)

    def do(path: Path | str, wait: Wait) -> _Outcome:
        done = edits.rewrite(
            path,
            request,
            output=output,
            keep_history=not no_history,
            strategy=Strategy(strategy) if strategy else None,
            follow=follow,
            dry_run=dry_run,
            progress=_told(wait, path),
        )
        return done, _verified(path, done, llama_cpp, wait) if verify and not dry_run else ()

    work = FileCommand(
        do=do,
        as_json=_as_json,
        show=partial(_show, dry_run=dry_run),
        columns=(
            "method",
            "length",
            "expectation",
            "would write by" if dry_run else "written by",
            "bytes",
            "seconds",
        ),
        cells=_cells,
    )
    handle_files(paths, work, as_json=as_json)


def _verified(
    path: Path | str, done: Rewritten, llama_cpp: Path | None, wait: Wait
) -> tuple[str, ...]:
    stands, name = _what_stands(path, done.receipt), shown(str(path))

    def tell(what: str) -> None:
        wait.tell(Told(f"{name}: {what}"))

    try:
        return edits.verify(done, llama_cpp=llama_cpp, notify=tell)
    except GgufextError as error:
        error.path = error.path or done.receipt.output
        error.message += f"; {stands}"
        raise
    except KeyboardInterrupt:
        with wait.silent():
            show_note(f"interrupted before it was verified; {stands}", done.receipt.output)
        raise


def _what_stands(path: Path | str, receipt: Receipt) -> str:
    """What a file is like that could not be verified, and how to be rid of that."""
    if receipt.strategy is None:
        return "nothing was written: the file held these values before"
    if receipt.undo is not None:
        return f"the edit stands; `{receipt.undo}` gives the original back"
    if receipt.output != path:
        return f"the new file stands; `rm {shell_word(receipt.output)}` removes it"
    return "the edit stands, and --no-history kept nothing for an undo: get the original again"


def _cells(outcome: _Outcome) -> tuple[str, ...]:
    plan, receipt = outcome[0].plan, outcome[0].receipt
    return (
        plan.method.value,
        f"{plan.train_length.value:,} → {plan.target_length:,}",
        plan.verdict.value,
        receipt.strategy.value if receipt.strategy else "nothing: it holds this",
        f"{receipt.bytes_written:,}",
        f"{receipt.seconds:.3f}",
    )


def _as_json(path: Path | str, outcome: _Outcome) -> dict[str, object]:
    done, checks = outcome
    receipt = done.receipt
    shown = sentences.plan_as_json(path, done.plan) | {
        "strategy": receipt.strategy.value if receipt.strategy else None,
        "output": str(receipt.output),
        "bytes_written": receipt.bytes_written,
        "ranges": [[r.start, r.end, r.what] for r in receipt.ranges],
        "seconds": receipt.seconds,
        "undo": receipt.undo,
    }
    text = edits.modelfile(path, done)
    return (
        shown
        | ({"verified": list(checks)} if checks else {})
        | ({"modelfile": text} if text else {})
    )


def _show(path: Path | str, outcome: _Outcome, *, dry_run: bool) -> None:
    done, checks = outcome
    receipt = done.receipt
    name = click.style(printable(str(path)), bold=True)
    click.echo(f"{name}: {sentences.head_line(done.plan)}")
    for line in sentences.plan_lines(done.plan):
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
            click.echo(f"  undo with: {receipt.undo}")
        if receipt.in_use:
            click.echo(f"  {IN_USE}")
    for check in checks:
        click.echo(f"  verified: {check}")
    text = edits.modelfile(path, done)
    if text is not None:
        click.echo("  save these lines as Modelfile, then `ollama create NAME -f Modelfile`:")
        click.echo(text, nl=False)
    show_warnings(done.plan.warnings, path)


def _told(wait: Wait, path: Path | str) -> Callable[[int, int], None]:
    """What hears how far a copy is."""
    what = f"copying {shown(str(path))}"
    return lambda done, total: wait.tell(Told(what, done, total, "bytes"))


_UNDONE = {
    State.RESTORED: "original restored by",
    State.POSSIBLE: "an exact undo is possible, by",
}


@click.command(short_help="Give the exact original bytes back.")
@paths_argument
@follow_option
@click.option("--check", is_flag=True, help="Only say whether an exact undo is possible.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Write the original to this new file and leave FILE alone.",
)
@click.option(
    "--force",
    is_flag=True,
    help="Replace a file that is in use by a new one; replace an existing output.",
)
@json_option
def undo(
    paths: tuple[Path | str, ...],
    follow: bool,
    check: bool,
    output: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Give rewritten files their exact original bytes back.

    With --check nothing is written; the exit status is 1 where an exact undo is not possible.
    """
    if output is not None and len(set(paths)) > 1:
        raise click.UsageError("--output takes one FILE")

    def do(path: Path | str, wait: Wait) -> Undone:
        return edits.undo(
            path,
            output=output,
            follow=follow,
            check=check,
            force=force,
            progress=_told(wait, path),
        )

    work = FileCommand(
        do=do,
        as_json=lambda _path, done: done,
        show=_show_undone,
        columns=("state", "by", "original bytes"),
        cells=_cells_of_undone,
    )
    handle_files(paths, work, as_json=as_json)


def _show_undone(_path: Path | str, done: Undone) -> None:
    by = done.strategy.value if done.strategy else "nothing"
    click.echo(f"{printable(str(done.path))}: {_UNDONE[done.state]} {by}, {done.size:,} bytes")
    if done.in_use:
        click.echo(f"  {IN_USE}")


def _cells_of_undone(done: Undone) -> tuple[str, ...]:
    by = done.strategy.value if done.strategy else ""
    return done.state.value, by, f"{done.size:,}"


_RECOVERED = {
    State.RESTORED: "is as it was before the interrupted edit",
    State.FINISHED: "the interrupted edit is finished",
    State.UNTOUCHED: "is complete: nothing had to be done",
}


@click.command(short_help="Finish or take back an interrupted edit.")
@path_argument
@follow_option
@click.option(
    "--force", is_flag=True, help="Recover a file that is in use, where no program can load it."
)
@json_option
def recover(path: Path | str, follow: bool, force: bool, as_json: bool) -> None:
    """Bring a file whose edit was interrupted to its old or its new state."""
    done = edits.recover(path, follow=follow, force=force)
    if as_json:
        show_json(done)
    else:
        click.echo(f"{printable(str(done.path))}: {_RECOVERED[done.state]}, {done.size:,} bytes")

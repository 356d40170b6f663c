"""``ggufext rewrite``, ``set``, ``undo`` and ``recover``: what changes files."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ggufext.api import edits
from ggufext.api.edits import State, Strategy
from ggufext.api.plans import RunTimeMethod
from ggufext.cli.options import (
    ModelName,
    edit_options,
    follow_option,
    json_option,
    model_files,
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
from ggufext.cli.waiting import Told, waiting
from ggufext.errors import EditError, GgufextError, PlanError, command, printable, shell_word, shown
from ggufext.presenting import sentences
from ggufext.presenting.documents import ChangedModel, RewrittenModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from ggufext.api.edits import DraftCheck, KeysSet, Receipt, Rewritten, Undone
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
    "--also",
    metavar="DRAFT",
    type=ModelName(),
    callback=model_files,
    help="Extend this draft model for speculative decoding too, by the same method, if it belongs "
    "to FILE.",
)
@edit_options
@click.option(
    "--force",
    is_flag=True,
    help="Accept an unverified architecture, a factor above 1024, a method that changes "
    "sliding-window layers, a file in use (a new one takes its place), an existing output.",
)
@json_option
def rewrite(
    paths: tuple[Path | str, ...],
    also: Path | str | None,
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
    if also is not None and (output is not None or len(set(paths)) > 1):
        raise click.UsageError("--also takes one FILE, and both are edited in place")
    _check_llama_cpp(llama_cpp, verify=verify)
    named, request = asked(force=force, **wished)
    if isinstance(named, RunTimeMethod):
        target = str(request.target_length)
        planning = command("plan", paths[0], "--target", target, "--method", named.value)
        raise PlanError(code="run_time_method", message=_RUN_TIME[named].format(planning=planning))

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
    if also is None:
        handle_files(paths, work, as_json=as_json)
        return
    (path,) = paths
    chosen = Strategy(strategy) if strategy else None
    checked = edits.check_draft(path, also, request, strategy=chosen, follow=follow)
    handle_files(
        checked.extended, replace(work, do=_until_one_fails(do)), as_json=as_json, as_list=True
    )
    if not as_json:
        click.echo(_agreement(path, also, checked, request.target_length))


def _check_llama_cpp(llama_cpp: Path | None, *, verify: bool) -> None:
    """Refuse a llama.cpp that does not work before anything is written for it to verify."""
    if llama_cpp is None:
        return
    if not verify:
        raise click.UsageError("--llama-cpp belongs to --verify")
    edits.try_llama_cpp(llama_cpp)


def _until_one_fails(do: Callable[[Path | str, Wait], _Outcome]) -> Callable[..., _Outcome]:
    """The same work, but nothing is done to a target whose draft model was not extended."""
    failed: list[Path | str] = []

    def both(path: Path | str, wait: Wait) -> _Outcome:
        if failed:
            raise EditError(
                code="draft_unusable",
                path=path,
                message="is left as it is, since its draft model was not extended: the two would "
                "not agree",
            )
        failed.append(path)
        done = do(path, wait)
        failed.clear()
        return done

    return both


def _agreement(path: Path | str, draft: Path | str, checked: DraftCheck, length: int) -> str:
    """That a target and its draft agree, and which of them was left as it is."""
    said = (
        f"{printable(str(path))} and {printable(str(draft))} agree: {checked.tokens:,} tokens "
        f"alike, and both reach {length:,}"
    )
    left = [printable(str(each)) for each in (path, draft) if each not in checked.extended]
    return said + (f", {left[0]} as it was trained" if left else "")


def _verified(
    path: Path | str, done: Rewritten | KeysSet, llama_cpp: Path | None, wait: Wait
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


def _as_json(path: Path | str, outcome: _Outcome) -> RewrittenModel:
    done, checks = outcome
    text = edits.modelfile(path, done)
    return RewrittenModel(str(path), done.plan, done.receipt, verified=checks, modelfile=text)


def _show(path: Path | str, outcome: _Outcome, *, dry_run: bool) -> None:
    done, checks = outcome
    name = click.style(printable(str(path)), bold=True)
    click.echo(f"{name}: {sentences.head_line(done.plan)}")
    for line in sentences.plan_lines(done.plan):
        click.echo(line)
    _show_receipt(path, done.receipt, checks, dry_run=dry_run)
    _show_modelfile(edits.modelfile(path, done))
    show_warnings(done.plan.warnings, path)


def _show_receipt(
    path: Path | str, receipt: Receipt, checks: tuple[str, ...], *, dry_run: bool
) -> None:
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


def _show_modelfile(text: str | None) -> None:
    if text is not None:
        click.echo("  save these lines as Modelfile, then `ollama create NAME -f Modelfile`:")
        click.echo(text, nl=False)


def _told(wait: Wait, path: Path | str) -> Callable[[int, int], None]:
    """What hears how far a copy is."""
    what = f"copying {shown(str(path))}"
    return lambda done, total: wait.tell(Told(what, done, total, "bytes"))


@click.command("set", short_help="Set or delete keys in place.")
@path_argument
@click.argument("assignments", metavar="[KEY=VALUE]...", nargs=-1)
@click.option("--delete", metavar="KEY", multiple=True, help="Delete this key; may be repeated.")
@edit_options
@click.option(
    "--force",
    is_flag=True,
    help="Accept keys of an unverified architecture, an unknown pre-tokenizer, a file in use (a "
    "new one takes its place), an existing output.",
)
@json_option
def set_(
    path: Path | str,
    assignments: tuple[str, ...],
    delete: tuple[str, ...],
    output: Path | None,
    no_history: bool,
    strategy: str | None,
    follow: bool,
    dry_run: bool,
    verify: bool,
    llama_cpp: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Set or delete keys of a GGUF file in place; undo gives the exact original bytes back.

    A key keeps the type that it has in the file. KEY:TYPE=VALUE says another one, and that of a
    new key: u8 to u64, i8 to i64, f32, f64, bool or str, with [] behind it an array of one. An
    array is written as JSON: 'my.list:str[]=["a", "b"]'. KEY=@NAME takes the text of a file.
    """
    if not assignments and not delete:
        raise click.UsageError("nothing to do: expected KEY=VALUE or --delete KEY")
    _check_llama_cpp(llama_cpp, verify=verify)

    with waiting(shown(str(path))) as wait:
        done = edits.set_keys(
            path,
            _values(assignments),
            delete=delete,
            output=output,
            keep_history=not no_history,
            strategy=Strategy(strategy) if strategy else None,
            follow=follow,
            force=force,
            dry_run=dry_run,
            progress=_told(wait, path),
        )
        checks = _verified(path, done, llama_cpp, wait) if verify and not dry_run else ()
    text = edits.modelfile(path, done)
    if as_json:
        show_json(ChangedModel(str(path), done.changes, done.receipt, checks, text))
        return
    from ggufext.cli.diff import key_line  # only what sets keys needs it

    click.echo(printable(shown(str(path))))
    for change in done.changes:
        click.echo(f"  {key_line(change)}")
    _show_receipt(path, done.receipt, checks, dry_run=dry_run)
    _show_modelfile(text)


def _values(assignments: tuple[str, ...]) -> dict[str, str | Path]:
    """Values by key; a file where a text is to be taken from one."""
    values: dict[str, str | Path] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise click.UsageError(f"{printable(assignment, 80)!r} is no KEY=VALUE")
        if key in values:
            raise EditError(
                code="duplicate_key",
                field=key,
                message="is named twice: say once what it becomes",
            )
        values[key] = Path(value[1:]) if value.startswith("@") else value
    return values


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

"""The command reference says what the commands themselves say."""

import write_commands


def test_command_reference_is_what_the_help_texts_say() -> None:
    assert write_commands.PAGE.read_text(encoding="utf-8") == write_commands.page(), (
        "run: python docs/write_commands.py"
    )

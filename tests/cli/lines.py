"""The one line that a command ends with."""


def only_line(text):
    """The one line that is left beside the names of phases."""
    lines = [line for line in text.splitlines() if not line.endswith("…")]
    assert len(lines) == 1, text
    return lines[0]


def refusal(result):
    """The line of a command that was refused."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = only_line(result.stderr)
    assert line.startswith("keras-diagwise: ")
    return line

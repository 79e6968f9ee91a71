"""Progress as it is drawn on a terminal."""

import io

from rich.console import Console

from iwae.cli.console import MAX_BARS, ConsoleReporter


def test_of_many_pieces_of_work_the_last_few_have_a_bar() -> None:
    text = io.StringIO()
    with ConsoleReporter(Console(file=text, force_terminal=True, width=79, height=50)) as reporter:
        for index in range(20):
            reporter.measuring(f"part {index}", 10, 10)
    drawn = text.getvalue().rpartition("part 15")[2]
    assert [f"part {index}" in drawn for index in (14, 15, 16, 17, 18, 19)] == [False, False, True, True, True, True]
    assert MAX_BARS == 4

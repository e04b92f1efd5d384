"""Lines that go on and never end: the server holds a few dozen of them."""

from __future__ import annotations

from mmekit.lines import MAX_LINE, LineParser, pieces, tag


def begun(number: int) -> bytes:
    """Return the first piece of a line that a worker died in."""
    first, *_ = pieces(tag("m", "stdout", "", [str(number)]), b"%d " % number + b"x" * MAX_LINE)
    return first


def test_of_many_unfinished_lines_the_oldest_are_given_out_cut() -> None:
    parser = LineParser()
    given = [line for number in range(2000) for line in parser.feed(begun(number))]
    kept = parser.close()
    assert len(kept) <= 50
    assert [line.text.partition(" ")[0] for line in [*given, *kept]] == [str(n) for n in range(2000)]
    assert all(line.request_id == line.text.partition(" ")[0] for line in given)
    assert all(line.text.endswith("x … [the line's end did not come]") for line in given)


def test_a_line_that_goes_on_is_not_the_oldest() -> None:
    parser = LineParser()
    first, *more = pieces(tag("m", "stdout", "", ["long"]), b"y" * MAX_LINE)
    parser.feed(first)
    for number in range(20):
        parser.feed(begun(number))
    parser.feed(more[0])
    for number in range(20, 40):
        parser.feed(begun(number))
    (line,) = (line for piece in more[1:] for line in parser.feed(piece))
    assert line.text == "y" * MAX_LINE

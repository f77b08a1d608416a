"""Text on the report's pages."""

from loadtests.report.page import prose


def test_a_line_ends_neither_within_an_option_nor_before_a_per_cent_sign() -> None:
    found = prose("95 % prove <this> (--resume with a longer --dry-run) -- 5 - 3")
    assert str(found) == (
        '95\u00a0% prove &lt;this&gt; (<span class="whole">--resume</span> with a longer '
        '<span class="whole">--dry-run</span>) -- 5 - 3'
    )

"""Markdown and LaTeX: what names may hold, and whether TeX takes it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from pylatexenc.latex2text import LatexNodes2Text
from pylatexenc.latexwalker import LatexWalker

from ghostify.reports.build import build_report
from ghostify.reports.texts import latex_document, latex_table, markdown, to_latex, to_markdown
from ghostify.reports.values import Cell, Column, Command, Footnote, Report, Row, Table
from tests.reports.synthetic import comparison, write_runs

ODD = '<script>alert(1)</script> & 100 % of a_b | ~x^2 {y} $z$ #1 \\input{/etc/passwd} *b* `c` "q"'


LETTERS = "中文 🙂 é ≥ \N{EN DASH} \N{MULTIPLICATION SIGN} ▲"


def odd_report() -> Report:
    """Return a report with odd names wherever a name may stand."""
    columns = (Column("method", ODD, numeric=False), Column("top1", "Top-1, %", marks=("a",)))
    row = Row("r.1", (Cell(ODD, marks=("†",)), Cell("90.0 ± 1.0", 90.0, 1.0, True, ("▼",))), ODD,
              pareto=True)  # fmt: skip
    table = Table("odd", ODD, columns, (row,), (Footnote("a", ODD), Footnote("▼", "worse")), ODD)
    return Report(ODD, (ODD,), (ODD,), (table,), commands=(Command("r.1", ODD, f"run '{ODD}'"),),
                  remarks=(ODD, LETTERS), files=("odd.csv",))  # fmt: skip


def test_markdown_shows_odd_names_as_they_are() -> None:
    text = markdown(odd_report())

    outside = "".join(part for at, part in enumerate(text.split("\n```\n")) if at % 2 == 0)
    assert "<script" not in outside
    assert "&lt;script&gt;" in outside
    assert r"a\_b \| \~x^2 \{y\} \$z\$ \#1" in outside
    assert r"\*b\* \`c\`" in outside


def test_markdown_tables_have_one_width() -> None:
    rows = [line for line in markdown(odd_report()).splitlines() if line.startswith("|")]

    widths = {line.replace(r"\|", "").count("|") for line in rows}
    assert widths == {3}
    assert len(rows) == 4


def test_markdown_is_bold_and_marked() -> None:
    text = markdown(odd_report())

    assert "**90.0 ± 1.0**<sup>▼</sup>" in text
    assert "<sup>†</sup> ◆ |" in text


def test_commands_are_verbatim_whatever_they_hold() -> None:
    report = Report("t", (), (), (), commands=(Command("r", "one", "echo '```' & <b>"),))

    text = markdown(report)

    assert "````\necho '```' & <b>\n````" in text


def test_markdown_stays_on_one_line() -> None:
    assert to_markdown("a\nb\t c") == "a b c"


@pytest.mark.parametrize("text", [ODD, "a--b", "é ü ß", "50 % ± 2 ≥ 1", "x < y > z"])
def test_latex_reads_back_as_it_was(text: str) -> None:
    """pylatexenc's own reader takes it for plain text, without a macro that does anything."""
    escaped = to_latex(text)

    LatexWalker(escaped, tolerant_parsing=False).get_latex_nodes()
    known = re.sub(r"\\ensuremath\{([^}]*)\}", r"$\1$", escaped)  # that reader lacks this one
    read = LatexNodes2Text(math_mode="text").latex_to_text(known)
    assert read.translate(str.maketrans("“”\N{MODIFIER LETTER CIRCUMFLEX ACCENT}", '""^')) == text


def test_latex_has_no_macro_of_a_name() -> None:
    assert r"\input" not in to_latex(ODD)


def test_letters_that_latex_lacks_become_question_marks() -> None:
    assert to_latex("中") == r"{\bfseries ?}"


def test_latex_table_is_booktabs() -> None:
    text = latex_table(odd_report().tables[0])

    assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
    assert r"\begin{tabular}{lr}" in text
    assert r"\textbf{90.0 \ensuremath{\pm} 1.0}" in text
    assert r"\ensuremath{\blacklozenge}" in text


def test_latex_parses(tmp_path: Path) -> None:
    report = build_report(write_runs(tmp_path / "r", comparison()), figures=False)

    texts = [latex_document(report), *(latex_table(table) for table in report.tables)]

    for text in texts:
        LatexWalker(text, tolerant_parsing=False).get_latex_nodes()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no TeX is installed")
@pytest.mark.parametrize("kind", ["odd", "real"])
def test_latex_compiles(kind: str, tmp_path: Path) -> None:
    real = build_report(write_runs(tmp_path / "r", comparison()), published=["table5"],
                        figures=False)  # fmt: skip
    report = odd_report() if kind == "odd" else real
    (tmp_path / "report.tex").write_text(latex_document(report), encoding="utf-8")
    for table in report.tables:
        (tmp_path / f"{table.id}.tex").write_text(latex_table(table), encoding="utf-8")

    run = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "report"],
        cwd=tmp_path, capture_output=True, timeout=120, check=False,
    )  # fmt: skip

    assert run.returncode == 0, run.stdout[-2000:].decode(errors="replace")
    assert (tmp_path / "report.pdf").stat().st_size > 10_000

"""A table as text for a terminal: columns in line, no borders."""

from collections.abc import Iterator

from pipeline.report.cells import Cell, Table

GAP = "  "


def table_lines(table: Table) -> Iterator[str]:
    """The heads, a line each row; leading columns of words to the left, the others to the right.

    >>> from pipeline.report.cells import TableRow
    >>> rows = (TableRow((Cell("patience"), Cell("88.1", "[87.9, 88.4]"))), TableRow((Cell("entropy"), Cell("7.0"))))
    >>> print(*table_lines(Table("t", "A table", ("Exit rule", "Score"), rows)), sep="|")
      Exit rule              Score|  patience   88.1 [87.9, 88.4]|  entropy                  7.0
    """
    grid = [list(table.columns), *([_text(cell) for cell in row.cells] for row in table.rows)]
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    for line in grid:
        cells = [
            f"{text:<{width}}" if i < table.names else f"{text:>{width}}"
            for i, (text, width) in enumerate(zip(line, widths, strict=True))
        ]
        yield f"  {GAP.join(cells)}".rstrip()


def _text(cell: Cell) -> str:
    return " ".join(filter(None, (cell.text, *cell.detail.splitlines(), *(f"({flag})" for flag in cell.flags))))

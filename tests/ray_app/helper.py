"""What only the driver has."""

from own.draws import normal


def rows(cell):
    return [{"number": cell.number, "value": normal(cell)}]

"""Long rows that are cut into parts, a block each, where there are too few of them to fill a device.

A first kernel writes what it found in each part, a second puts the parts of a row together, always in the same order,
and writes the results: one read more, and every multiprocessor takes part. No figure here is tuned on hardware yet.
"""

from __future__ import annotations

_LONG = 1 << 15  # columns from which two launches are quicker than one block
_PART = 1 << 12  # columns that a part should have at least
_BOUNDARY = 64  # columns that a part is a multiple of, so that parts begin on 16-byte boundaries as their row does
MOST_PARTS = 256  # each thread of a block puts one in


def parts_of_row(rows: int, cols: int, multiprocessors: int) -> tuple[int, int] | None:
    """Into how many parts each row is cut and how long they are; the last may be shorter. None: rows stay whole."""
    if cols < _LONG or 2 * rows > multiprocessors:
        return None
    parts = min(cols // _PART, -(-2 * multiprocessors // rows), MOST_PARTS)
    chunk = -(-cols // parts)
    chunk += -chunk % _BOUNDARY
    return -(-cols // chunk), chunk

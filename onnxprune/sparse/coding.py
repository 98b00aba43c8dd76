"""The coding of a sparse weight of bytes: its values and gaps without loss in fewer bits, together in one constant.

A symbol is coded as by JPEG and Deflate: `width` bits name a group of symbols, and as many further bits as the group
has say which of them it is. Groups are chosen for the fewest bits, some hundredths to a quarter of a bit above that
of the information. Unlike codes of any length, these are decoded by operators on whole tensors: where the
further bits of a number begin is a running sum.

    group 0: 0 bits, from 5; group 1: 2 bits, from 8; width 1
    symbols [5 8 5 11]  ->  groups 0 1 0 1, further bits 00 11  ->  bytes [0b1010] [0b1100]

Where numbers have few levels, several together are one symbol: the digits of a number of that base. A symbol that does
not fill a whole bit then costs less.

The constant holds bytes: the size of blocks, their number (4, low byte first), then the values and the gaps, each as

- `width`, the number of listed symbols, numbers in a symbol, levels - 1, lowest number; powers of the base;
- further bits of each group, first symbol of each group, the listed symbols;
- the groups of all symbols, and the further bits of all, each from a byte on. Bits fill a byte from the lowest on.

A coded number below that of the listed symbols stands for one of these, any other for itself: so symbols that lie far
apart are in groups too. Two zero bytes end it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MAX_WIDTH = 7
MAX_FURTHER = 8
MAX_LISTED = 255
MAX_JOINED = 8
HEAD_BYTES, SIZES = 5, 5
MAX_COUNT = 2**31 - 1
# Bits are read from two bytes at once.
END_BYTES = 2
# Positions of bits are int32 in the decoding function.
MAX_BITS = 2**31 - 1
# What the node that decodes takes in the file.
NODE_BYTES = 128
# Decoding takes time and memory when a session is made, which a few percent of the file are not worth.
LARGEST_PART = 0.85
# With fewer non-zeros in all weights of bytes, the functions that decode take more than is saved: 4.3 kB.
LEAST_CODED = 12_000
NUMBERS = 256
# Values of a byte: more would let a few broken bytes claim all memory.
MOST_NUMBERS = 64


class _Groups(NamedTuple):
    """How numbers are coded: `width` bits name a group, of which these are the further bits and the first number."""

    width: int
    further: np.ndarray
    first: np.ndarray
    listed: np.ndarray
    bits: int
    """What symbols and tables take."""


class _Digits(NamedTuple):
    """How numbers become symbols: `joined` of them, as digits of base `levels`, the first the lowest, from `low` on."""

    joined: int
    levels: int
    low: int

    @property
    def powers(self) -> np.ndarray:
        return self.levels ** np.arange(self.joined)

    def symbols(self, numbers: np.ndarray) -> np.ndarray:
        digits = (numbers.astype(np.int64) - self.low) % NUMBERS
        padded = np.pad(digits, (0, -len(digits) % self.joined)).reshape(-1, self.joined)
        return padded @ self.powers


def code(values: np.ndarray, gaps: np.ndarray) -> np.ndarray | None:
    """`values` (n, block) of int8 or uint8 and `gaps` (n) uint8 as one array of uint8.

    None where they are too many, or need so few bits that a reader would take the file for a broken one.
    """
    coded = [_coded_numbers(each.reshape(-1)) for each in (values, gaps)]
    if coded[0] is None or coded[1] is None or len(gaps) > MAX_COUNT:
        return None
    head = [np.array([values.shape[1]], np.uint8), np.array([len(gaps)], "<u4").view(np.uint8)]
    whole = np.concatenate([*head, *coded[0], *coded[1], np.zeros(END_BYTES, np.uint8)])
    return whole if values.size <= MOST_NUMBERS * len(whole) else None


def smaller_code(values: np.ndarray, gaps: np.ndarray, dense: int | None = None) -> np.ndarray | None:
    """The same, where it takes clearly fewer bytes than both, and than the weight dense."""
    coded = code(values, gaps)
    raw = values.nbytes + gaps.nbytes
    most = LARGEST_PART * (raw if dense is None else min(raw, dense))
    return None if coded is None or len(coded) + NODE_BYTES > most else coded


def uncode(coded: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """The values, of int8 or uint8, and the gaps that `code` was given.

    Raises:
        ValueError: the bytes are no coding.
    """
    if coded.dtype != np.uint8 or coded.ndim != 1:
        raise ValueError("it is no list of bytes")
    block = int(_slice(coded, 0, HEAD_BYTES)[0])
    count = int(coded[1:HEAD_BYTES].copy().view("<u4")[0])
    if count * block > MOST_NUMBERS * len(coded):
        raise ValueError(f"it has {len(coded)} bytes for {count * block} numbers")
    values, end = _numbers(coded, HEAD_BYTES, count * block)
    gaps, end = _numbers(coded, end, count)
    if end + END_BYTES != len(coded):
        raise ValueError(f"it has {len(coded)} bytes, not {end + END_BYTES}")
    return values.view(dtype).reshape(count, block), gaps


def _coded_numbers(numbers: np.ndarray) -> list[np.ndarray] | None:
    """The tables and the bits of numbers (n), int8 or uint8."""
    low, most = (int(each) for each in (numbers.min(initial=0), numbers.max(initial=0)))
    levels = most - low + 1
    joined = 1
    while levels ** (joined + 1) <= NUMBERS and joined < MAX_JOINED:
        joined += 1
    tried = [_Digits(1, NUMBERS, 0), *([_Digits(joined, levels, low)] if joined > 1 else [])]
    symbols = [each.symbols(numbers) for each in tried]
    groups = [_best_groups(np.bincount(each, minlength=NUMBERS)) for each in symbols]
    best = min(range(len(tried)), key=lambda index: groups[index].bits)
    return _with_tables(symbols[best], tried[best], groups[best])


def _with_tables(symbols: np.ndarray, digits: _Digits, groups: _Groups) -> list[np.ndarray] | None:
    # Which number each symbol is coded as, in which group.
    ranks = np.arange(NUMBERS)
    ranks[groups.listed] = np.arange(len(groups.listed))
    group_of = np.zeros(NUMBERS, np.uint8)
    for group in reversed(range(2**groups.width)):
        first = int(groups.first[group])
        group_of[first : first + 2 ** int(groups.further[group])] = group
    rank = ranks[symbols]
    group = group_of[rank]
    rest, further = rank - groups.first[group], groups.further[group]
    if max(len(symbols) * groups.width, int(further.sum(dtype=np.int64))) > MAX_BITS:
        return None
    sizes = [groups.width, len(groups.listed), digits.joined, digits.levels - 1, digits.low % NUMBERS]
    tables = [np.array(sizes), digits.powers, groups.further, groups.first, groups.listed]
    widths = np.full(len(symbols), groups.width, np.uint8)
    return [*(table.astype(np.uint8) for table in tables), _packed(group, widths), _packed(rest, further)]


def _packed(numbers: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """Numbers in so many bits each, the lowest first."""
    places = np.arange(MAX_FURTHER, dtype=np.uint8)
    bits = (numbers.astype(np.uint8)[:, np.newaxis] >> places) & 1
    return np.packbits(bits[places < widths[:, np.newaxis]], bitorder="little")


def _best_groups(counts: np.ndarray) -> _Groups:
    """The groups with which numbers that occur so often (256) take fewest bits, tables included."""
    plain = _cheapest(counts, np.zeros(0, np.int64))
    used = np.flatnonzero(counts)
    if len(used) > MAX_LISTED:
        return plain
    by_count = used[np.argsort(-counts[used], kind="stable")]
    return min(plain, _cheapest(counts[by_count], by_count), key=lambda groups: groups.bits)


def _cheapest(counts: np.ndarray, listed: np.ndarray) -> _Groups:
    """The groups with fewest bits for numbers 0, 1, ..., that occur so often; each begins at one that does."""
    used = np.flatnonzero(counts)
    total = np.concatenate([[0], np.cumsum(counts[used])])
    # Rows: further bits of a group that begins at the column's number.
    after = np.array([np.searchsorted(used, used + 2**bits) for bits in range(MAX_FURTHER + 1)])
    bits = np.arange(MAX_FURTHER + 1)[:, np.newaxis] * (total[after] - total[:-1])
    # What numbers from a column's on take in so many groups at most, and the first group's further bits.
    cost = np.full(len(used) + 1, np.inf)
    cost[-1] = 0
    choices: list[np.ndarray] = []
    found: tuple[float, int] = (np.inf, 0)
    for width in range(MAX_WIDTH + 1):
        for _ in range(2**width - len(choices)):
            sums = bits + cost[after]
            choices.append(sums.argmin(axis=0))
            cost[:-1] = sums.min(axis=0)
        tables = 8 * (2 * 2**width + len(listed))
        found = min(found, (cost[0] + int(total[-1]) * width + tables, width))
        if 2**width >= len(used):
            break
    size, width = found
    further, first = np.zeros(2**width, np.int64), np.zeros(2**width, np.int64)
    at = 0
    for group in range(2**width):
        if at == len(used):
            break
        further[group] = choices[2**width - 1 - group][at]
        first[group] = used[at]
        at = after[further[group], at]
    return _Groups(width, further, first, listed, int(size))


def _numbers(coded: np.ndarray, start: int, count: int) -> tuple[np.ndarray, int]:
    """`count` numbers (uint8) that are coded from byte `start` on, and where they end."""
    width, listed, joined, highest, low = (int(size) for size in _slice(coded, start, SIZES))
    if width > MAX_WIDTH or not 1 <= joined <= MAX_JOINED:
        raise ValueError(f"{width} bits for a group, {joined} numbers in a symbol")
    tables = []
    start += SIZES
    for size in (joined, 2**width, 2**width, listed):
        tables.append(_slice(coded, start, size).astype(np.int64))
        start += size
    powers, further, first, symbols = tables
    if further.max() > MAX_FURTHER or powers.min() == 0:
        raise ValueError(f"{further.max()} further bits, powers {powers.tolist()}")
    length = -(-count // joined)
    size = -(-length * width // 8)
    group = _unpacked(_slice(coded, start, size), np.broadcast_to(np.int64(width), length))
    widths = further[group]
    start += size
    size = -(-int(widths.sum()) // 8)
    number = first[group] + _unpacked(_slice(coded, start, size), widths)
    if length and number.max() >= NUMBERS:
        raise ValueError(f"a number is {number.max()}")
    table = np.arange(NUMBERS)
    table[:listed] = symbols
    digits = (table[:, np.newaxis] // powers % (highest + 1) + low) % NUMBERS
    return digits.astype(np.uint8)[number].reshape(-1)[:count], start + size


def _slice(coded: np.ndarray, start: int, size: int) -> np.ndarray:
    if start + size > len(coded):
        raise ValueError(f"it has {len(coded)} bytes, and more are needed")
    return coded[start : start + size]


def _unpacked(packed: np.ndarray, widths: np.ndarray) -> np.ndarray:
    """The numbers that `_packed` was given."""
    if not len(packed):
        return np.zeros(len(widths), np.int64)
    at = np.cumsum(widths) - widths
    padded = np.append(packed, np.zeros(2, np.uint8)).astype(np.int64)
    pairs = padded[:-1] + 256 * padded[1:]
    return (pairs[at // 8] >> at % 8) & ((1 << widths) - 1)

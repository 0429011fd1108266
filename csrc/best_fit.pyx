# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""Which segments share a bin: best fit with look-ahead over a bitmap of waiting lengths, GIL-free.

The plain Python twin is in ldm/data/packing_reference.py.
"""

from libc.stdint cimport int32_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc

cdef extern from *:
    """
    static inline int last_bit(unsigned long long word) { return 63 - __builtin_clzll(word); }
    """
    int last_bit(unsigned long long word) noexcept nogil


def best_fit(
    const int32_t[::1] lengths,
    int bin_tokens,
    int lookahead,
    int32_t[::1] order,
    int32_t[::1] bin_ends,
):
    """Fills bins in the order of `lengths`, topped up from the next `lookahead` segments.

    A bin takes the oldest waiting segment while that fits, then always the longest waiting one that
    fits (the oldest of that length), until none does. Bins are made while `lookahead` segments
    wait; the rest is left over. lengths int32 (n,), each in 1..bin_tokens. Writes to order (n,) the
    segments bin by bin, then those left over in their order, and to bin_ends (n,) where each bin
    ends in it. Returns the number of bins. Raises MemoryError, and ValueError for a bad length.
    """
    cdef Py_ssize_t n = lengths.shape[0], i
    if order.shape[0] < n or bin_ends.shape[0] < n:
        raise ValueError(f"order and bin_ends need {n} entries")
    for i in range(n):
        if not 1 <= lengths[i] <= bin_tokens:
            raise ValueError(f"segment {i} has {lengths[i]} tokens, expected 1..{bin_tokens}")
    if n == 0:
        return 0
    cdef int32_t* heads = <int32_t*>malloc((bin_tokens + 1) * sizeof(int32_t))
    cdef int32_t* tails = <int32_t*>malloc((bin_tokens + 1) * sizeof(int32_t))
    cdef int32_t* following = <int32_t*>malloc(n * sizeof(int32_t))
    cdef uint8_t* taken = <uint8_t*>calloc(n, 1)
    cdef uint64_t* bitmap = <uint64_t*>calloc(bin_tokens // 64 + 1, sizeof(uint64_t))
    cdef Py_ssize_t bins = -1
    if heads and tails and following and taken and bitmap:
        with nogil:
            bins = _fill(
                &lengths[0], n, bin_tokens, lookahead, &order[0], &bin_ends[0],
                heads, tails, following, taken, bitmap,
            )
    free(heads)
    free(tails)
    free(following)
    free(taken)
    free(bitmap)
    if bins < 0:
        raise MemoryError(f"no memory to pack {n} segments")
    return bins


cdef Py_ssize_t _fill(
    const int32_t* lengths, Py_ssize_t n, int bin_tokens, int lookahead,
    int32_t* order, int32_t* bin_ends,
    int32_t* heads, int32_t* tails, int32_t* following, uint8_t* taken, uint64_t* bitmap,
) noexcept nogil:
    # Waiting segments of one length are a queue heads[length] → following → tails[length]; a bit in
    # `bitmap` says that the queue of a length is not empty.
    cdef Py_ssize_t read = 0, placed = 0, oldest = 0, bins = 0, i
    cdef int32_t remaining, length
    while True:
        while read < n and read - placed < lookahead:
            length = lengths[read]
            if bitmap[length >> 6] >> (length & 63) & 1:
                following[tails[length]] = read
            else:
                heads[length] = read
                bitmap[length >> 6] |= <uint64_t>1 << (length & 63)
            tails[length] = read
            read += 1
        if read - placed < lookahead or read == placed:
            break
        remaining = bin_tokens
        while remaining > 0:
            while oldest < read and taken[oldest]:
                oldest += 1
            if oldest < read and lengths[oldest] <= remaining:
                length = lengths[oldest]
            else:
                length = _longest(bitmap, remaining)
                if length == 0:
                    break
            i = heads[length]
            if i == tails[length]:
                bitmap[length >> 6] &= ~(<uint64_t>1 << (length & 63))
            else:
                heads[length] = following[i]
            taken[i] = 1
            order[placed] = i
            placed += 1
            remaining -= length
        bin_ends[bins] = placed
        bins += 1
    for i in range(n):
        if not taken[i]:
            order[placed] = i
            placed += 1
    return bins


cdef int32_t _longest(const uint64_t* bitmap, int32_t limit) noexcept nogil:
    # The highest set bit at or below `limit`, 0 if none.
    cdef int32_t word = limit >> 6
    cdef uint64_t bits = bitmap[word] & (~<uint64_t>0 >> (63 - (limit & 63)))
    while bits == 0:
        if word == 0:
            return 0
        word -= 1
        bits = bitmap[word]
    return (word << 6) + last_bit(bits)

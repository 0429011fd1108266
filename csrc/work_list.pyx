# cython: boundscheck=False, wraparound=False, cdivision=True
"""Tiles of packed attention from segment starts, without the GIL.

The twin, with what a tile means, is `ldm.kernels.packed_attention.work_list`.
"""

from libc.stdint cimport int32_t
from libc.stdlib cimport calloc, free


cdef int fill(
    const int32_t[::1] cu_seqlens, int32_t[:, ::1] short_tiles, int32_t[:, ::1] long_tiles,
    int32_t short_rows, int32_t long_rows, int32_t* begin, int32_t* counts,
) noexcept nogil:
    """Writes all tiles; `begin` holds one slot for every place a piece can have in its segment.

    0, or 1 where a list is too short.
    """
    cdef Py_ssize_t segments = cu_seqlens.shape[0] - 1, i
    cdef int32_t first, last, start, place, row, n_short = 0, n_long = 0, deepest = 0
    cdef int32_t tile_start = -1, tile_end = -1
    for i in range(segments):
        first, last = cu_seqlens[i], cu_seqlens[i + 1]
        if last - first > short_rows:
            place = (last - first + long_rows - 1) // long_rows
            deepest = max(deepest, place)
            begin[place - 1] += 1  # segments whose last piece stands at this place
            n_long += place
        elif last > first:
            if tile_end == first and last - tile_start <= short_rows:
                row = n_short - 1
            else:
                if n_short == short_tiles.shape[0]:
                    return 1
                row, tile_start, n_short = n_short, first, n_short + 1
            tile_end = last
            short_tiles[row, 0] = short_tiles[row, 2] = tile_start
            short_tiles[row, 1] = short_tiles[row, 3] = last
    if n_long > long_tiles.shape[0]:
        return 1
    # A piece at place p costs p + 1 blocks: the deepest places come first.
    cdef int32_t alive = 0, offset = 0
    for place in range(deepest - 1, -1, -1):
        alive += begin[place]
        begin[place] = offset
        offset += alive
    for i in range(segments):
        first, last = cu_seqlens[i], cu_seqlens[i + 1]
        if last - first > short_rows:
            place, start = 0, first
            while start < last:
                row = begin[place]
                begin[place] += 1
                long_tiles[row, 0] = start
                long_tiles[row, 1] = min(start + long_rows, last)
                long_tiles[row, 2] = first
                long_tiles[row, 3] = last
                place, start = place + 1, start + long_rows
    counts[0], counts[1] = n_short, n_long
    return 0


def build(
    const int32_t[::1] cu_seqlens, int32_t[:, ::1] short_tiles, int32_t[:, ::1] long_tiles,
    int32_t short_rows, int32_t long_rows,
):
    """Fills both lists and zeroes the rest; returns the tiles of each, (short, long).

    cu_seqlens: int32, ascending. Raises ValueError where it descends or a list is too short.
    """
    cdef Py_ssize_t i
    cdef int32_t counts[2]
    cdef int32_t* begin
    cdef int failed
    for i in range(cu_seqlens.shape[0] - 1):
        if cu_seqlens[i + 1] < cu_seqlens[i]:
            raise ValueError(f"cu_seqlens descends from {cu_seqlens[i]} to {cu_seqlens[i + 1]}")
    begin = <int32_t*> calloc(cu_seqlens[cu_seqlens.shape[0] - 1] // long_rows + 2, sizeof(int32_t))
    if begin == NULL:
        raise MemoryError()
    with nogil:
        failed = fill(cu_seqlens, short_tiles, long_tiles, short_rows, long_rows, begin, counts)
        free(begin)
    if failed:
        raise ValueError(
            f"{short_tiles.shape[0]} short and {long_tiles.shape[0]} long tiles are too few"
        )
    short_tiles[counts[0]:, :] = 0
    long_tiles[counts[1]:, :] = 0
    return counts[0], counts[1]

# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The copy of many byte ranges out of several arrays into one, without the GIL."""

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy


def gather(
    sources,
    const int32_t[::1] source_S,
    const int64_t[::1] start_S,
    const int64_t[::1] end_S,
    uint8_t[::1] out,
):
    """Writes bytes start_S[i]:end_S[i] of sources[source_S[i]], end to end, to `out`.

    sources: uint8 arrays of one dimension; source_S, start_S, end_S (S,). Raises IndexError for a
    range outside its array, ValueError where `out` is not as long as all ranges together.
    """
    cdef Py_ssize_t n = source_S.shape[0], count = len(sources), i, total = 0
    cdef const uint8_t[::1] view
    if start_S.shape[0] != n or end_S.shape[0] != n:
        raise ValueError(f"{n} sources, {start_S.shape[0]} starts and {end_S.shape[0]} ends")
    cdef const uint8_t** at = <const uint8_t**>malloc(max(count, 1) * sizeof(uint8_t*))
    cdef int64_t* sizes = <int64_t*>malloc(max(count, 1) * sizeof(int64_t))
    try:
        if at == NULL or sizes == NULL:
            raise MemoryError(f"no memory for the table of {count} arrays")
        for i in range(count):
            view = sources[i]
            sizes[i] = view.shape[0]
            at[i] = &view[0] if view.shape[0] else NULL
        for i in range(n):
            if not 0 <= source_S[i] < count or not 0 <= start_S[i] <= end_S[i] <= sizes[source_S[i]]:
                raise IndexError(f"no bytes {start_S[i]} to {end_S[i]} in array {source_S[i]}")
            total += end_S[i] - start_S[i]
        if total != out.shape[0]:
            raise ValueError(f"{total} bytes to copy, room for {out.shape[0]}")
        if total:
            _copy(at, &source_S[0], &start_S[0], &end_S[0], n, &out[0])
    finally:
        free(at)
        free(sizes)


cdef void _copy(
    const uint8_t** at, const int32_t* source, const int64_t* start, const int64_t* end,
    Py_ssize_t n, uint8_t* out,
) noexcept:
    cdef Py_ssize_t i
    with nogil:
        for i in range(n):
            if end[i] > start[i]:
                memcpy(out, at[source[i]] + start[i], end[i] - start[i])
                out += end[i] - start[i]

# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The plan of the token embedding from a packed batch, without the GIL.

The twin, with what everything means, is `ldm.kernels.token_embedding.embedding_plan`.
"""

from libc.stdint cimport int32_t, uint8_t
from libc.stdlib cimport calloc, free, malloc


def tiles(
    const uint8_t[::1] kinds, int groups, int window, int tile, int32_t[:, ::1] tiles_QM,
    int32_t[:, ::1] groups_VI,
):
    """Fills both arrays. groups: kinds with tiles of their own, the last that of patches; any other
    kind counts as 0. Raises ValueError where the arrays have the wrong number of rows."""
    cdef Py_ssize_t windows = (kinds.shape[0] + window - 1) // window
    cdef int capacity = (window + tile - 1) // tile + groups
    if tiles_QM.shape[0] != windows * capacity or groups_VI.shape[0] != windows:
        raise ValueError(f"expected {windows} windows of {capacity} tiles")
    if not windows:
        return
    cdef int32_t* places = <int32_t*>malloc(groups * sizeof(int32_t))
    if places == NULL:
        raise MemoryError("no memory for the groups of a window")
    with nogil:
        _tiles(kinds, groups, window, tile, capacity, tiles_QM, groups_VI, places)
    free(places)


cdef void _tiles(
    const uint8_t[::1] kinds, int groups, int window, int tile, int capacity,
    int32_t[:, ::1] tiles_QM, int32_t[:, ::1] groups_VI, int32_t* places,
) noexcept nogil:
    cdef Py_ssize_t n = kinds.shape[0], v, i, end, kind
    cdef int32_t patches = 0, at
    cdef int32_t* flat = &tiles_QM[0, 0]
    for i in range(tiles_QM.shape[0] * tile):
        flat[i] = -1
    for v in range(groups_VI.shape[0]):
        end = min((v + 1) * window, n)
        for kind in range(groups):
            places[kind] = 0
        for i in range(v * window, end):
            places[kinds[i] if kinds[i] < groups else 0] += 1
        groups_VI[v, groups + 1] = patches
        patches += places[groups - 1]
        at = 0
        for kind in range(groups):
            groups_VI[v, kind] = at
            at += (places[kind] + tile - 1) // tile
            places[kind] = (v * capacity + groups_VI[v, kind]) * tile
        groups_VI[v, groups] = at
        for i in range(v * window, end):
            kind = kinds[i] if kinds[i] < groups else 0
            flat[places[kind]] = i
            places[kind] += 1


def entry_tokens(
    const int32_t[::1] offsets, const float[::1] weights, const int32_t[::1] order,
    int32_t[::1] tokens_B, float[::1] weights_B,
) -> int:
    """Fills tokens_B and weights_B with the token and the weight of every entry in `order`, and
    zeros past the last offset's.

    Returns the number of entries. order: a permutation of them, then anything.
    """
    cdef Py_ssize_t n = offsets.shape[0] - 1, entries = offsets[n], i, j
    cdef int32_t* token_of = <int32_t*>malloc(max(entries, 1) * sizeof(int32_t))
    if token_of == NULL:
        raise MemoryError(f"no memory for the tokens of {entries} bag entries")
    with nogil:
        for i in range(n):
            for j in range(offsets[i], offsets[i + 1]):
                token_of[j] = i
        for j in range(entries):
            tokens_B[j] = token_of[order[j]]
            weights_B[j] = weights[order[j]]
        for j in range(entries, tokens_B.shape[0]):
            tokens_B[j] = 0
            weights_B[j] = 0
    free(token_of)
    return entries


cdef struct Walk:
    Py_ssize_t runs, pieces, slots


def count(
    const int32_t[::1] ids, const int32_t[::1] order, const int32_t[::1] tokens_B, int entries,
    int span, int piece, int32_t[::1] windows_V1,
):
    """(runs, pieces, slots) of the first `entries` entries, runs cut every `span` tokens; fills
    windows_V1."""
    cdef Walk walk
    cdef Py_ssize_t v
    with nogil:
        windows_V1[:] = 0
        _walk(ids, order, tokens_B, entries, span, piece, &windows_V1[0], NULL, NULL, &walk)
        for v in range(1, windows_V1.shape[0]):
            windows_V1[v] += windows_V1[v - 1]
    return walk.runs, walk.pieces, walk.slots


def fill(
    const int32_t[::1] ids, const int32_t[::1] order, const int32_t[::1] tokens_B, int entries,
    int span, int piece, const int32_t[::1] windows_V1, int32_t[:, ::1] pieces_Q4,
    int32_t[:, ::1] rows_R2,
):
    """Fills rows_R2, and the pieces that windows_V1 counts; those past them are zeros.

    Raises ValueError for an id outside the table.
    """
    cdef Walk walk
    cdef Py_ssize_t v, i, windows = windows_V1.shape[0]
    cdef int32_t* places = <int32_t*>calloc(windows + 1, sizeof(int32_t))
    if places == NULL:
        raise MemoryError(f"no memory for {windows} windows")
    if entries and not 0 <= ids[order[0]] <= ids[order[entries - 1]] < rows_R2.shape[0]:
        free(places)
        raise ValueError(f"a bag id is outside the table of {rows_R2.shape[0]} rows")
    with nogil:
        rows_R2[:, :] = 0
        pieces_Q4[windows_V1[windows - 1]:] = 0
        for v in range(windows - 1):
            places[v + 1] = windows_V1[v]
        if entries:
            _walk(ids, order, tokens_B, entries, span, piece, places, &pieces_Q4[0, 0],
                  &rows_R2[0, 0], &walk)
    free(places)


cdef void _walk(
    const int32_t[::1] ids, const int32_t[::1] order, const int32_t[::1] tokens, Py_ssize_t entries,
    int span, int piece, int32_t* places, int32_t* pieces, int32_t* rows, Walk* walk,
) noexcept nogil:
    # places[w + 1]: counts the pieces of window w, from where they are written to if `pieces`.
    cdef Py_ssize_t start = 0, end, run, run_end, at, i, most, written
    cdef int32_t row, w
    cdef bint only
    walk.runs = walk.pieces = walk.slots = 0
    while start < entries:
        row = ids[order[start]]
        end = start + 1
        while end < entries and ids[order[end]] == row:
            end += 1
        only = end - start <= piece and tokens[start] // span == tokens[end - 1] // span
        run, written = start, 0
        most = 1 if only else _longest(tokens, start, end, span, piece)
        while run < end:
            w = tokens[run] // span
            run_end = _end_of_run(tokens, run, end, span)
            walk.runs += 1
            i, at = 0, run
            while at < run_end:
                if pieces:
                    _piece(pieces + 4 * places[w + 1], at, min(at + piece, run_end),
                           -1 if only else 2 * (walk.slots + i) + (i < written),
                           row if run_end == end and most == 1 else -1)
                places[w + 1] += 1
                walk.pieces += 1
                i += 1
                at += piece
            written = max(written, i)
            run = run_end
        if rows:
            rows[2 * row] = walk.slots
            rows[2 * row + 1] = most if most > 1 else -1
        if not only:
            walk.slots += most
        start = end


cdef Py_ssize_t _end_of_run(
    const int32_t[::1] tokens, Py_ssize_t run, Py_ssize_t end, int span
) noexcept nogil:
    # Of the entries from `run` that are of its window; entries of a row ascend by token.
    cdef int32_t limit = (tokens[run] // span + 1) * span
    while run < end and tokens[run] < limit:
        run += 1
    return run


cdef Py_ssize_t _longest(
    const int32_t[::1] tokens, Py_ssize_t start, Py_ssize_t end, int span, int piece
) noexcept nogil:
    # Pieces of the longest run of a row.
    cdef Py_ssize_t most = 0, run_end
    while start < end:
        run_end = _end_of_run(tokens, start, end, span)
        most = max(most, (run_end - start + piece - 1) // piece)
        start = run_end
    return most


cdef void _piece(
    int32_t* to, Py_ssize_t start, Py_ssize_t end, Py_ssize_t slot, Py_ssize_t row
) noexcept nogil:
    to[0], to[1], to[2], to[3] = start, end, slot, row

# cython: boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The copy of segments into one batch, and the sorted order of its bag ids. Without the GIL.

The plain Python twin is in ldm/data/packing_reference.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

cdef enum:
    PATCH = 3
    BEFORE = 2  # ldm.data.rows.BEFORE


cdef struct Source:
    const int32_t* steps
    const int32_t* environments
    const uint8_t* named
    const uint8_t* kinds
    const uint16_t* bag_counts
    const uint8_t* feature_counts
    const uint8_t* own_counts
    const uint16_t* label_counts
    const int32_t* bag_ids
    const float* features
    const uint8_t* patches
    const int32_t* slots
    const int32_t* classes
    const float* values
    const uint8_t* smooth
    const int64_t* at_N
    const int64_t* at_B
    const int64_t* at_G
    const int64_t* at_P
    const int64_t* at_L


cdef struct Target:
    uint8_t* kinds
    int32_t* bag_ids
    float* bag_weights
    int32_t* bag_offsets
    float* features
    uint8_t* patches
    int32_t* patch_tokens
    int32_t* label_tokens
    int32_t* slots
    int32_t* classes
    float* values
    uint8_t* smooth
    int32_t* environments
    int32_t* owners
    int32_t* cu_seqlens
    int32_t* positions


cdef struct Cursor:
    int64_t token, bag, patch, label, segment, longest, used, steps


cdef class Sources:
    """Encoded blocks whose arrays C code may read; holds them alive."""

    cdef Source* sources
    cdef Py_ssize_t count
    cdef object blocks

    def __cinit__(self, blocks):
        self.blocks, self.count = list(blocks), len(blocks)
        self.sources = <Source*>malloc(max(self.count, 1) * sizeof(Source))
        if self.sources == NULL:
            raise MemoryError("no memory for the table of encoded blocks")
        for i, block in enumerate(self.blocks):
            self._set(&self.sources[i], block, block.offsets)

    def __dealloc__(self):
        free(self.sources)

    cdef int _set(self, Source* to, block, offsets) except -1:
        to.steps = _int32(block.steps_S)
        to.environments = _int32(block.environment_S)
        to.named = _uint8(block.named_S)
        to.kinds = _uint8(block.kinds_N)
        to.bag_counts = _uint16(block.bag_counts_N)
        to.feature_counts = _uint8(block.feature_counts_N)
        to.own_counts = _uint8(block.own_counts_N)
        to.label_counts = _uint16(block.label_counts_N)
        to.bag_ids = _int32(block.bag_ids_B)
        to.features = _float(block.features_G)
        to.patches = _uint8(block.patches_PX.reshape(-1))
        to.slots = _int32(block.slots_L)
        to.classes = _int32(block.classes_L)
        to.values = _float(block.values_L)
        to.smooth = _uint8(block.smooth_L)
        to.at_N = _int64(offsets["N"])
        to.at_B = _int64(offsets["B"])
        to.at_G = _int64(offsets["G"])
        to.at_P = _int64(offsets["P"])
        to.at_L = _int64(offsets["L"])
        return 0

    def measure(self, const int32_t[::1] source_S, const int32_t[::1] segment_S):
        """(bag entries, patches, labels) of these segments. Raises IndexError for an unknown one."""
        cdef int64_t bags = 0, patches = 0, labels = 0
        cdef Source* s
        cdef int32_t i
        for j in range(segment_S.shape[0]):
            i = segment_S[j]
            if not 0 <= source_S[j] < self.count or not 0 <= i < len(self.blocks[source_S[j]]):
                raise IndexError(f"no segment {i} in block {source_S[j]}")
            s = &self.sources[source_S[j]]
            bags += s.at_B[i + 1] - s.at_B[i]
            patches += s.at_P[i + 1] - s.at_P[i]
            labels += s.at_L[i + 1] - s.at_L[i]
        return bags, patches, labels

    def scatter(
        self,
        const int32_t[::1] source_S,
        const int32_t[::1] segment_S,
        const int32_t[::1] bin_ends,
        int bin_tokens,
        arrays,
    ):
        """Copies the segments bin by bin into `arrays`, a dict of the arrays of a PackedBatch.

        source_S, segment_S int32 (S,): block and segment, bin after bin; bin_ends int32 (bins,).
        Sizes are those that `measure` gave. Returns (longest segment, used tokens, transitions).
        Raises ValueError where a bin is too small for its segments.
        """
        cdef Target to
        to.kinds = _uint8(arrays["kinds_N"])
        to.bag_ids = _int32(arrays["bag_ids_B"])
        to.bag_weights = _float(arrays["bag_weights_B"])
        to.bag_offsets = _int32(arrays["bag_offsets_N1"])
        to.features = _float(arrays["features_NG"].reshape(-1))
        to.patches = _uint8(arrays["patches_PX"].reshape(-1))
        to.patch_tokens = _int32(arrays["patch_tokens_P"])
        to.label_tokens = _int32(arrays["tokens_L"])
        to.slots = _int32(arrays["slots_L"])
        to.classes = _int32(arrays["classes_L"])
        to.values = _float(arrays["values_L"])
        to.smooth = _uint8(arrays["smooth_L"])
        to.environments = _int32(arrays["environments_L"])
        to.owners = _int32(arrays["owners_L"])
        to.cu_seqlens = _int32(arrays["cu_seqlens_S1"])
        to.positions = _int32(arrays["positions_N"])
        cdef Py_ssize_t capacity = len(arrays["cu_seqlens_S1"]), bins = bin_ends.shape[0]
        cdef Py_ssize_t features = arrays["features_NG"].shape[1]
        cdef Py_ssize_t patch_bytes = arrays["patches_PX"].shape[1]
        cdef Cursor at
        cdef Py_ssize_t failed
        memset(&at, 0, sizeof(Cursor))
        if len(arrays["kinds_N"]) != bins * bin_tokens:
            raise ValueError(f"the batch has {len(arrays['kinds_N'])} tokens, not {bins * bin_tokens}")
        cdef const int32_t* source = _int32(source_S)
        cdef const int32_t* segment = _int32(segment_S)
        cdef const int32_t* ends = _int32(bin_ends)
        with nogil:
            failed = _scatter(
                self.sources, source, segment, ends, bins, bin_tokens, capacity,
                features, patch_bytes, &to, &at,
            )
        if failed >= 0:
            raise ValueError(
                f"bin {failed} cannot hold its segments: {bin_tokens} tokens, and {capacity - 1} "
                "segments in all bins"
            )
        return at.longest, at.used, at.steps


cdef Py_ssize_t _scatter(
    const Source* sources, const int32_t* source_S, const int32_t* segment_S,
    const int32_t* bin_ends, Py_ssize_t bins, Py_ssize_t bin_tokens, Py_ssize_t capacity,
    Py_ssize_t features, Py_ssize_t patch_bytes, Target* to, Cursor* at,
) noexcept nogil:
    # Returns the bin that overflows, or -1.
    cdef Py_ssize_t b, i = 0, end, length, rest
    cdef const Source* s
    to.bag_offsets[0] = 0
    for b in range(bins):
        end = (b + 1) * bin_tokens
        while i < bin_ends[b]:
            s = &sources[source_S[i]]
            length = s.at_N[segment_S[i] + 1] - s.at_N[segment_S[i]]
            if at.token + length > end or at.segment + 1 >= capacity:
                return b
            _segment(s, segment_S[i], length, features, patch_bytes, to, at)
            i += 1
        while at.token < end:
            if at.segment + 1 >= capacity:
                return b
            rest = end - at.token
            if 0 < at.longest < rest:  # no longer than a real segment
                rest = at.longest
            _padding(rest, features, to, at)
    while at.segment < capacity:
        to.cu_seqlens[at.segment] = bins * bin_tokens
        at.segment += 1
    return -1


cdef void _segment(
    const Source* s, Py_ssize_t i, Py_ssize_t length,
    Py_ssize_t features, Py_ssize_t patch_bytes, Target* to, Cursor* at,
) noexcept nogil:
    cdef int64_t n = s.at_N[i], bag = at.bag, label = at.label, patch = at.patch
    cdef Py_ssize_t labels = s.at_L[i + 1] - s.at_L[i], t, c, count
    cdef const float* numbers = s.features + s.at_G[i]
    cdef float* row = to.features + at.token * features
    to.cu_seqlens[at.segment] = at.token
    memcpy(to.kinds + at.token, s.kinds + n, length)
    memcpy(to.bag_ids + bag, s.bag_ids + s.at_B[i], (s.at_B[i + 1] - s.at_B[i]) * sizeof(int32_t))
    memcpy(to.patches + patch * patch_bytes, s.patches + s.at_P[i] * patch_bytes,
           (s.at_P[i + 1] - s.at_P[i]) * patch_bytes)
    memcpy(to.slots + label, s.slots + s.at_L[i], labels * sizeof(int32_t))
    memcpy(to.classes + label, s.classes + s.at_L[i], labels * sizeof(int32_t))
    memcpy(to.values + label, s.values + s.at_L[i], labels * sizeof(float))
    memcpy(to.smooth + label, s.smooth + s.at_L[i], labels)
    for t in range(labels):
        to.environments[label + t] = s.environments[i]
        to.owners[label + t] = s.environments[i] + 1 if s.named[i] else 0
    memset(row, 0, length * features * sizeof(float))
    for t in range(length):
        to.positions[at.token + t] = t
        count = s.bag_counts[n + t]
        for c in range(count):
            to.bag_weights[bag + c] = 1
        for c in range(s.own_counts[n + t]):
            to.bag_weights[bag + BEFORE + c] = numbers[c]
        bag += count
        to.bag_offsets[at.token + t + 1] = bag
        count = s.feature_counts[n + t]
        for c in range(count):
            row[c] = numbers[c]
        numbers += count
        row += features
        count = s.label_counts[n + t]
        for c in range(count):
            to.label_tokens[label + c] = at.token + t
        label += count
        if s.kinds[n + t] == PATCH:
            to.patch_tokens[patch] = at.token + t
            patch += 1
    at.bag, at.label, at.patch = bag, label, patch
    at.token += length
    at.used += length
    at.steps += s.steps[i]
    at.segment += 1
    at.longest = max(at.longest, length)


cdef void _padding(Py_ssize_t length, Py_ssize_t features, Target* to, Cursor* at) noexcept nogil:
    cdef Py_ssize_t t
    to.cu_seqlens[at.segment] = at.token
    memset(to.kinds + at.token, 0, length)
    memset(to.features + at.token * features, 0, length * features * sizeof(float))
    for t in range(length):
        to.positions[at.token + t] = t
        to.bag_offsets[at.token + t + 1] = at.bag
    at.token += length
    at.segment += 1
    at.longest = max(at.longest, length)


def sort_order(const int32_t[::1] ids, int rows, int32_t[::1] order):
    """The stable order that sorts `ids` (int32 (n,), each in 0..rows - 1), written to order (n,).

    Radix sort by digits of at most 11 bits. Raises ValueError for an id outside the table.
    """
    cdef Py_ssize_t n = ids.shape[0]
    cdef int bits = 1, passes, digit
    cdef bint valid = False, allocated
    if order.shape[0] != n:
        raise ValueError(f"order has {order.shape[0]} entries, expected {n}")
    if n == 0:
        return
    while (rows - 1) >> bits:
        bits += 1
    passes = (bits + 10) // 11
    digit = (bits + passes - 1) // passes
    cdef int32_t* spare = <int32_t*>malloc(n * sizeof(int32_t))
    cdef int32_t* starts = <int32_t*>calloc(passes << digit, sizeof(int32_t))
    allocated = spare and starts
    if allocated:
        with nogil:
            valid = _count(&ids[0], n, rows, passes, digit, starts)
            if valid:
                _radix(&ids[0], n, passes, digit, &order[0], spare, starts)
    free(spare)
    free(starts)
    if not allocated:
        raise MemoryError(f"no memory to sort {n} ids")
    if not valid:
        raise ValueError(f"a bag id is outside the table of {rows} rows")


cdef bint _count(
    const int32_t* ids, Py_ssize_t n, int32_t rows, int passes, int digit, int32_t* starts,
) noexcept nogil:
    # For every pass and digit, how many ids have a smaller digit. False for an id out of range.
    cdef int32_t mask = (1 << digit) - 1, d, total, count
    cdef Py_ssize_t j
    cdef int p
    for j in range(n):
        if not 0 <= ids[j] < rows:
            return False
        for p in range(passes):
            starts[(p << digit) + (ids[j] >> (p * digit) & mask)] += 1
    for p in range(passes):
        total = 0
        for d in range(1 << digit):
            count = starts[(p << digit) + d]
            starts[(p << digit) + d] = total
            total += count
    return True


cdef void _radix(
    const int32_t* ids, Py_ssize_t n, int passes, int digit,
    int32_t* order, int32_t* spare, int32_t* starts,
) noexcept nogil:
    cdef int32_t mask = (1 << digit) - 1, shift = 0, i, d
    cdef Py_ssize_t j
    cdef int p
    # After the last pass the result stands in `order`.
    cdef int32_t* source = order if passes % 2 == 0 else spare
    cdef int32_t* target = spare if passes % 2 == 0 else order
    for j in range(n):
        d = ids[j] & mask
        target[starts[d]] = j
        starts[d] += 1
    for p in range(1, passes):
        source, target = target, source
        shift += digit
        starts += 1 << digit
        for j in range(n):
            i = source[j]
            d = ids[i] >> shift & mask
            target[starts[d]] = i
            starts[d] += 1


# Raw pointers of contiguous arrays of the right type; the buffer protocol refuses any other.
cdef int32_t* _int32(array) except? NULL:
    cdef const int32_t[::1] view = array
    return <int32_t*>&view[0] if view.shape[0] else NULL

cdef int64_t* _int64(array) except? NULL:
    cdef const int64_t[::1] view = array
    return <int64_t*>&view[0] if view.shape[0] else NULL

cdef uint8_t* _uint8(array) except? NULL:
    cdef const uint8_t[::1] view = array
    return <uint8_t*>&view[0] if view.shape[0] else NULL

cdef uint16_t* _uint16(array) except? NULL:
    cdef const uint16_t[::1] view = array
    return <uint16_t*>&view[0] if view.shape[0] else NULL

cdef float* _float(array) except? NULL:
    cdef const float[::1] view = array
    return <float*>&view[0] if view.shape[0] else NULL

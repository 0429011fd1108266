"""The predictor: what it reads off machine code and the work list; its rates stay frozen."""

import json
from pathlib import Path

import numpy as np
import pytest

from ldm.bench.machine_code import innermost
from ldm.bench.predict import MACHINES, layer, moved, parts, pieces, summary, trips, worked_on

# µs a layer of 65,536 tokens, forward then backward, each H100 then H200, as audited by hand.
AUDITED = {
    "const 64": (315, 300, 689, 644),
    "exp 128": (546, 504, 1339, 1213),
    "exp 512": (866, 821, 2049, 1917),
    "dense 8k": (3569, 3524, 7965, 7833),
}


@pytest.mark.parametrize("name", AUDITED)
def test_it_reproduces_the_audit_within_five_percent(name):
    """On the launches and machine code of commit 966deb7, before any change."""
    lines = json.loads((Path(__file__).parent / "audited_launches.json").read_text())
    kernels = layer(lines, [line["code"] for line in lines], name)
    found = [line[f"{m} us"] for line in summary(kernels, name) for m in MACHINES]
    assert found == pytest.approx(AUDITED[name], rel=0.05)


def test_the_audited_launches_are_told_apart():
    lines = json.loads((Path(__file__).parent / "audited_launches.json").read_text())
    found = [(line["phase"], part) for line, part in zip(lines, parts(lines), strict=True)]
    assert found.count(("forward", "attention")) == 5
    assert found.count(("backward", "attention")) == 10
    assert found.count(("backward", "assembly")) == 5


@pytest.mark.parametrize("group", [1, 4])
def test_the_one_gradient_is_moved_once_by_the_two_passes_that_write_it(group):
    tensors = [{"name": "p_do", "bytes": 7}, {"name": "p_dqkv", "bytes": 90}]
    facts = {"constants": {"GROUP": group}, "tensors": tensors}
    query, key, short = (
        moved(facts | {"kernel": f"{name}_kernel"}) - 7 for name in ("query", "key", "short")
    )
    assert query + key == pytest.approx(90) and short == 90
    assert query == pytest.approx({1: 30, 4: 60}[group])  # heads of q, of q, k and v


CODE = """
.text.kernel:
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   FADD R2, R2, R3 ;
.L_x_0:
        /*0020*/                   FMUL R2, R2, R3 ;
        /*0030*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*0040*/               @P0 BRA `(.L_x_0) ;
        /*0050*/              @!P1 BRA `(.L_x_2) ;
        /*0060*/               @P1 BRA `(.L_x_1) ;
.L_x_2:
        /*0070*/                   EXIT ;
.L_x_3:
        /*0080*/                   BRA `(.L_x_3);
"""


def test_loops_are_branches_back_and_the_innermost_count():
    lines, loops = innermost(CODE)
    assert len(lines) == 9
    assert loops == [3]  # neither the loop around it, nor the jump ahead, nor the trap at the end


def walk(kernel, tiles, rows, keys):
    """Trips counted by walking the kernels' own loops."""
    counts = [0, 0]
    for start, end, first, last in tiles:
        if kernel == "key_kernel":
            past = start + -(-keys // rows) * rows
            spans = (range(start, min(start + keys, last), rows), range(past, last, rows))
        else:
            spans = (range(first, start, keys), range(start, end, keys))
        counts = [n + len(span) for n, span in zip(counts, spans, strict=True)]
    return counts


@pytest.mark.parametrize("kernel", ["forward_kernel", "key_kernel", "query_kernel"])
@pytest.mark.parametrize(("rows", "keys"), [(64, 64), (128, 64), (64, 32), (32, 64)])
def test_trips_are_those_of_the_kernels_loops(kernel, rows, keys):
    whole = np.array(
        [[0, 128, 0, 300], [128, 256, 0, 300], [256, 300, 0, 300], [300, 370, 300, 370]]
    )
    cut = pieces(whole, keys if kernel == "key_kernel" else rows, 128)
    assert (cut[:, 1] - cut[:, 0]).sum() == 370
    line = {"kernel": kernel, "constants": {"BM": rows, "BN": keys}}
    assert trips(line, cut) == walk(kernel, cut.tolist(), rows, keys)


@pytest.mark.parametrize("keys", [64, 32])
def test_a_segment_up_to_the_span_is_one_programs_and_longer_ones_are_the_two_passes(keys):
    whole = [[0, 128, 0, 200], [128, 200, 0, 200]]
    longer = [[200, 328, 200, 420], [328, 420, 200, 420]]
    tiles = np.array(whole + longer)
    constants = {"BM": 64, "BN": keys, "SPAN": 200}
    line = {"kernel": "segment_kernel", "constants": constants}
    mine = worked_on(line, tiles)
    assert mine.tolist() == whole
    assert worked_on(line | {"kernel": "key_kernel"}, tiles).tolist() == longer
    rows = [[start, min(start + 64, 200), 0, 200] for start in range(0, 200, 64)]
    of_keys = [[start, min(start + keys, 200), 0, 200] for start in range(0, 200, keys)]
    want = walk("query_kernel", rows, 64, keys) + walk("key_kernel", of_keys, 64, keys)
    assert trips(line, pieces(mine, 64, 128)) == want

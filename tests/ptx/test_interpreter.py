"""The interpreter: known answers, and every fault that it is there to see."""

import numpy as np
import pytest

import fastopt
from fastopt._arrays import driver
from fastopt._engine import single, streams
from fastopt._kernels import compiler

from .device import Device
from .execute import Launch
from .memory import Array, KernelError, Memory
from .parse import Module, split

THREADS = 64
TEXT = """
.version 9.0
.target sm_90
.address_size 64
.func (.param .b32 result) twice(.param .b32 given)
{
    .reg .b32 %r<3>;
    ld.param.u32 %r1, [given];
    add.s32 %r2, %r1, %r1;
    st.param.b32 [result+0], %r2;
    ret;
}
.visible .entry kernel(.param .u64 data, .param .u64 table)
{
    .reg .pred %p<9>; .reg .b16 %rs<9>; .reg .b32 %r<20>; .reg .f32 %f<9>; .reg .f64 %fd<9>; .reg .b64 %rd<20>;
    .shared .align 4 .b8 buffer[256];  // a number of 32 bits for each thread
    ld.param.u64 %rd1, [data];
    ld.param.u64 %rd9, [table];
    mov.u32 %r1, %tid.x;
    mul.wide.u32 %rd2, %r1, 4;
    add.s64 %rd3, %rd1, %rd2;   // of this thread, in data
    mov.u64 %rd4, buffer;
    add.s64 %rd5, %rd4, %rd2;   // of this thread, in shared memory
    BODY
    ret;
}
"""
MIRRORED = "sub.s32 %r8, 63, %r1; mul.wide.u32 %rd6, %r8, 4; add.s64 %rd7, %rd4, %rd6;"


def execute(body, values=None, grid=1, text=TEXT):
    """Return what a kernel made of the array `data`."""
    memory = Memory()
    data = Array(memory, np.zeros(THREADS, np.uint32) if values is None else values, "data")
    table = Array(memory, np.arange(THREADS, dtype=np.uint32), "table", writable=False)
    arguments = [np.uint64(a.address).tobytes() for a in (data, table)]
    Launch(Module(text.replace("BODY", body)), memory).run(arguments, grid, len(data.array))
    memory.check_guards()
    return data.array


def test_threads_part_and_meet():
    """Half of the threads loop, each as often as its number says; then they exchange what they have."""
    body = f"""
        mov.u32 %r2, 0; mov.u32 %r3, 0;
        setp.gt.u32 %p1, %r1, 31;
        @%p1 bra $ODD;
    $LOOP:
        add.s32 %r2, %r2, %r3; add.s32 %r3, %r3, 1;
        setp.le.u32 %p2, %r3, %r1;
        @%p2 bra $LOOP;
        bra.uni $MEET;
    $ODD:
        mov.u32 %r2, 7;
    $MEET:
        {MIRRORED}
        st.shared.u32 [%rd5], %r2;
        bar.sync 0;
        ld.shared.u32 %r4, [%rd7];
        st.global.u32 [%rd3], %r4;"""
    k = np.arange(THREADS)
    np.testing.assert_array_equal(execute(body), np.where(k > 31, 7, k * (k + 1) // 2)[::-1])


def test_calls_and_conditions():
    """A call by some threads leaves the registers of the others as they are."""
    body = """
        mov.u32 %r2, 1;
        setp.lt.u32 %p1, %r1, 9;
        @!%p1 bra $END;
        { .reg .b32 %r2; .param .b32 p0; st.param.b32 [p0+0], %r1; .param .b32 q0;
          call.uni (q0), twice, (p0); ld.param.b32 %r3, [q0+0]; }
        mov.u32 %r2, %r3;
    $END:
        @%p1 st.global.u32 [%rd3], %r2;
        @!%p1 st.global.u32 [%rd3], 5;"""
    np.testing.assert_array_equal(execute(body), [2 * k if k < 9 else 5 for k in range(THREADS)])


def test_blocks_and_special_registers():
    body = """
        mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %nctaid.x;
        setp.ne.s32 %p1, %r2, %r1;
        @%p1 bra $END;
        mad.lo.s32 %r5, %r4, 100, %r3; add.s32 %r5, %r5, %r2;
        st.global.u32 [%rd3], %r5;
    $END:"""
    np.testing.assert_array_equal(execute(body, grid=3)[:4], [364, 365, 366, 0])


def test_atomic_maximum():
    body = """
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra $WAIT;
        st.shared.u32 [%rd4], -9;
    $WAIT:
        bar.sync 0;
        sub.s32 %r2, %r1, 60;
        atom.shared.max.s32 %r3, [%rd4], %r2;
        bar.sync 0;
        ld.shared.u32 %r4, [%rd4]; st.global.u32 [%rd3], %r4;"""
    assert (execute(body) == 3).all()


def test_atomic_maximum_of_64_bits():
    body = """
        setp.ne.u32 %p1, %r1, 0;
        @%p1 bra $WAIT;
        mov.u64 %rd6, 5; st.shared.u64 [%rd4], %rd6;
    $WAIT:
        bar.sync 0;
        cvt.u64.u32 %rd6, %r1; shl.b64 %rd6, %rd6, 32; add.s64 %rd6, %rd6, 7;
        atom.shared.max.u64 %rd7, [%rd4], %rd6;
        bar.sync 0;
        ld.shared.u64 %rd8, [%rd4]; shr.u64 %rd8, %rd8, 32; cvt.u32.u64 %r4, %rd8; st.global.u32 [%rd3], %r4;"""
    assert (execute(body) == THREADS - 1).all()


def test_vectors_and_narrow_numbers():
    """Four bytes at a time, and the sign of one of them."""
    body = """
        ld.global.v4.u8 {%rs1, %rs2, %rs3, %rs4}, [%rd3];
        st.global.v4.u8 [%rd3], {%rs4, %rs3, %rs2, %rs1};
        ld.global.s8 %rs5, [%rd3+3]; cvt.u32.u16 %r2, %rs5; st.shared.u32 [%rd5], %r2;
        ld.shared.u32 %r3, [%rd5]; mov.b32 {%rs6, %rs7}, %r3; mov.b32 %r4, {%rs7, %rs6};
        add.s32 %r4, %r4, 1;
        st.global.u32 [%rd3], %r4;"""
    assert (execute(body, np.full(THREADS, 0x010203F0, np.uint32)) == 0xFFF00001).all()


FAULTS = {
    "one element beyond the end": ("st.global.u32 [%rd3+4], %r1;", "out of bounds.*data"),
    "one element before the start": ("ld.global.u32 %r2, [%rd3+-4];", "out of bounds.*data"),
    "beyond shared memory": ("st.shared.u32 [%rd5+4], %r1;", "out of bounds of shared memory"),
    "an address of global memory in shared memory": ("ld.shared.u32 %r2, [%rd3];", "out of bounds of shared memory"),
    "16 bytes at 4": ("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd3];", "misaligned: 16 bytes"),
    "8 bytes at 4": ("st.global.u64 [%rd3], %rd1;", "misaligned: 8 bytes"),
    "what is only to be read": ("st.global.u32 [%rd9], %r1;", "table is only to be read"),
    "two threads write": ("st.global.u32 [%rd1], %r1;", "race: data"),
    "one writes, another has read": ("ld.global.u32 %r2, [%rd1]; st.global.u32 [%rd3], %r2;", "race: data"),
    "one reads, another has written": (
        f"{MIRRORED} st.shared.u32 [%rd5], %r1; ld.shared.u32 %r2, [%rd7];",
        "race: shared",
    ),
    "an atomic operation and a plain one": (
        "st.shared.u32 [%rd5], 0; atom.shared.max.s32 %r3, [%rd4], %r1; bar.sync 0;",
        "race: shared memory",
    ),
    "different barriers": (
        "setp.gt.u32 %p1, %r1, 9; @%p1 bra $A; bar.sync 0; bra.uni $B; $A: bar.sync 0; $B: mov.u32 %r2, 0;",
        "same barrier",
    ),
    "a barrier without some threads": ("setp.gt.u32 %p1, %r1, 9; @%p1 bra $A; bar.sync 0; $A: ret;", "same barrier"),
    "a barrier with a number": ("bar.sync 1;", "unknown barrier"),
    "an unknown instruction": ("sqrt.approx.f32 %f1, %f2;", r"unknown instruction sqrt\.approx\.f32"),
    "an unknown modifier": ("add.rz.f32 %f1, 0f00000000, 0f00000000;", r"unknown instruction add\.rz\.f32"),
    "an unknown space": ("ld.local.u32 %r2, [%rd3];", r"unknown instruction ld\.local\.u32"),
    "an unknown special register": ("mov.u32 %r2, %laneid;", "unknown instruction.*laneid"),
    "an unknown directive": (".local .align 4 .b8 stack[8];", "not understood.*local"),
    "an unknown label": ("bra.uni $NOWHERE;", "no such label"),
    "an operand of another width": ("add.s64 %rd8, %rd3, %r1;", "unknown instruction.*%r1 is b32, not s64"),
    "a result of another width": ("mov.u64 %r2, %rd1;", "does not fit"),
    "an integer where a float belongs": ("add.f32 %f1, 0f00000000, 1;", "1 is an integer, not f32"),
    "an atomic operation whose result is used": (
        "atom.shared.max.s32 %r3, [%rd4], %r1; mov.u32 %r2, %r3;",
        "what was there before is used",
    ),
    "a register that nothing was written to": ("add.s32 %r2, %r3, 1;", "%r3 is read before it is written"),
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_seen(what):
    body, message = FAULTS[what]
    with pytest.raises(KernelError, match=message):
        execute(body)


def test_blocks_that_write_to_the_same_bytes():
    with pytest.raises(KernelError, match="race: data, byte 0, blocks 0 and 1"):
        execute("st.global.u32 [%rd3], %r1;", grid=2)
    assert execute("ld.global.u32 %r2, [%rd3];", grid=2) is not None
    with pytest.raises(KernelError, match="race: data, byte 0, blocks 0 and 1"):
        execute(
            "mov.u32 %r2, %ctaid.x; setp.eq.s32 %p1, %r2, 0; @%p1 ld.global.u32 %r3, [%rd3];"
            "@!%p1 st.global.u32 [%rd3], 1;",
            grid=2,
        )


def test_a_variable_of_the_module_and_arguments_that_are_missing():
    with pytest.raises(KernelError, match="variable not understood"):
        Module(".visible .const .align 4 .b8 table[4] = {1, 2, 3, 4};")
    with pytest.raises(KernelError, match=r"unknown instruction.*somewhere"):
        execute("mov.u64 %rd6, somewhere;", text=".common .global .align 8 .u64 somewhere;" + TEXT)
    memory = Memory()
    with pytest.raises(KernelError, match="arguments"):
        Launch(Module(TEXT.replace("BODY", "")), memory).run([b"\0" * 8], 1, THREADS)


def test_guard_bytes():
    """What writes past the checks, as the host may, is seen after the launch."""
    memory = Memory()
    array = Array(memory, np.zeros(5, np.uint8), "data", shift=3)
    memory.check_guards()
    assert array.address % 256 == 3
    for k, what in ((array._stop, "behind"), (array._start - 1, "before")):
        array._whole[k] += 1
        with pytest.raises(KernelError, match=f"bytes {what} data were written"):
            memory.check_guards()
        array._whole[k] -= 1
    address = np.array([array.address], np.uint64)
    del array
    with pytest.raises(KernelError, match="out of bounds"):
        list(memory.locate(address, 1, "gone"))


def test_lists_of_operands():
    assert split("{%a, %b}, [%c+4], (d, e), 5") == ["{%a, %b}", "[%c+4]", "(d, e)", "5"]


def test_nothing_of_the_stand_in_stays(installed, monkeypatch):
    """What it replaces is there again, of fastopt and of numba-cuda, and no kernel of it is kept."""
    from numba.cuda import codegen, dispatcher
    from numba.cuda.cudadrv import driver as numba_driver

    places = (driver, streams, dispatcher, dispatcher._Kernel, codegen.CUDACodeLibrary, numba_driver)

    def contents():
        return {(place, name): value for place in places for name, value in vars(place).items()}

    before = contents()
    with Device().install(monkeypatch) as device:
        replaced = [key for key, value in contents().items() if value is not before[key]]
        assert {place for place, _ in replaced} == set(places)
        p = device.array(np.ones(3, np.float32))
        fastopt.gd(p, device.array(np.ones(3, np.float32), writable=False), lr=0.5)
        assert p.array.tolist() == [0.5] * 3
        assert compiler.device_sweep.cache_info().currsize == 1
    after = contents()
    assert all(after[key] is before[key] for key in replaced)
    for cache in (compiler.device_sweep, single._table, single._chunks):
        assert cache.cache_info().currsize == 0

"""Every codec by itself, in NumPy: all patterns, rounding, means, what is not finite. Kernels are held to it
elsewhere."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from llvmlite import ir

from fastopt._storage import evaluator, random_bits
from fastopt._storage.codecs import FLOAT, INT32
from fastopt._storage.evaluator import Builder, value
from fastopt._storage.int8 import BLOCK
from fastopt._storage.layout import CODECS

B = Builder()
NARROW = [name for name in CODECS if name not in ("float64", "float32")]
PATTERNS = {
    "float16": np.arange(2**16, dtype=np.uint16).view(np.float16),
    "bfloat16": np.arange(2**16, dtype=np.uint16).view(ml_dtypes.bfloat16),
}


def bits(array):
    return array.view(f"u{array.itemsize}")


def decode(name, stored, scale=None):
    scale = None if scale is None else value(np.asarray(scale, np.uint32))
    return CODECS[name].read(B, [value(a) for a in stored], FLOAT, scale, nonfinite=True).array


def encode(name, numbers, words=0, scale=None, *, nonfinite=True):
    words = value(np.asarray(words, np.uint32))
    scale = None if scale is None else value(np.asarray(scale, np.uint32))
    parts = CODECS[name].write(B, value(np.asarray(numbers, np.float32)), words, scale, nonfinite=nonfinite)
    return [part.array for part in parts]


def every_word(count):
    """Return random words that go through all values of their lower bits."""
    return np.arange(count, dtype=np.uint32) * np.uint32(random_bits._ALONG)


def float32s(count=300_000):
    """Return numbers of every size, NaN, infinities, subnormals, and those halfway between two of 16 bits."""
    rng = np.random.default_rng(0)
    given = rng.integers(0, 2**32, count, np.uint32)
    halves = given & np.uint32(0xFFFF0000) | np.uint32(0x8000)
    narrow = [PATTERNS[name].astype(np.float32) for name in PATTERNS]
    near = [np.nextafter(a, np.float32(s)) for a in narrow for s in (np.inf, -np.inf)]
    between = [(a + np.roll(a, 1)) / 2 for a in narrow]
    special = np.array([0, -0.0, np.inf, -np.inf, np.nan, -np.nan, 3.4e38, 65504, 65519.99, 65520, 1e-45], np.float32)
    payloads = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7F800001, 0xFF800001, 0x7FFF8000], np.uint32).view(np.float32)
    return np.concatenate(
        [given.view(np.float32), halves.view(np.float32), *narrow, *near, *between, special, payloads]
    )


pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.parametrize("name", PATTERNS)
def test_widening_all_65536_patterns(name):
    wide, right = (
        decode(name, [bits(PATTERNS[name]) if name == "bfloat16" else PATTERNS[name]]),
        PATTERNS[name].astype("f4"),
    )
    nan = np.isnan(right)
    np.testing.assert_array_equal(bits(wide[~nan]), bits(right[~nan]))
    np.testing.assert_array_equal(np.isnan(wide), nan)
    np.testing.assert_array_equal(np.signbit(wide), np.signbit(right))


@pytest.mark.parametrize("name", PATTERNS)
def test_narrowing_to_the_nearest_is_that_of_numpy_and_ml_dtypes(name):
    given = float32s()
    right = given.astype(PATTERNS[name].dtype)
    (narrow,) = encode(name, given)
    nan = np.isnan(given)
    assert nan.sum() > 1000
    np.testing.assert_array_equal(bits(narrow[~nan]), bits(right[~nan]))
    assert np.isnan(bits(narrow)[nan].view(PATTERNS[name].dtype)).all()


@pytest.mark.parametrize("name", PATTERNS)
@pytest.mark.parametrize("word", [0, 1, 0x1234567, 0xFFFFFFFF])
def test_at_random_it_is_one_of_the_two_neighbours_and_what_fits_stays(name, word):
    kind = PATTERNS[name].dtype.type
    given = float32s()
    (narrow,) = encode(f"{name}-stochastic", given, word)
    wide = bits(narrow).view(kind).astype(np.float32)
    nan = np.isnan(given)
    np.testing.assert_array_equal(np.isnan(wide), nan)
    near = given.astype(kind)
    with np.errstate(all="ignore"):
        below = np.where(near.astype("f4") <= given, near, np.nextafter(near, kind(-np.inf))).astype("f4")
        above = np.where(near.astype("f4") >= given, near, np.nextafter(near, kind(np.inf))).astype("f4")
    assert ((wide == below) | (wide == above))[~nan].all()
    if name == "float16":
        assert np.isinf(near.astype("f4"))[np.isinf(wide)].all()
    np.testing.assert_array_equal(np.signbit(wide[~nan]), np.signbit(given[~nan]))


@pytest.mark.parametrize("name", [n for n in NARROW if n.endswith("-stochastic")] + ["bfloat16-split8"])
@pytest.mark.parametrize("size", [1.0, -300.7, 3e-5, 1e-7, 60000.0])
def test_rounded_at_random_means_are_kept(name, size):
    """Over all random bits the mean is the number itself, to one part of them."""
    given = np.float32(size)
    words = np.arange(2**16, dtype=np.uint32)
    parts = encode(name, np.full(len(words), given), words)
    numbers = decode(name, parts).astype(np.float64)
    unit = numbers.max() - numbers.min()
    assert (
        abs(numbers.mean() - given) <= unit * 2**-7 * 1.01
        if "split8" in name
        else abs(numbers.mean() - given) <= unit * 2**-12
    )


@pytest.mark.parametrize("name", ["float16-kahan", "bfloat16-kahan"])
def test_kahan_keeps_twice_the_digits(name):
    kind = PATTERNS[name.partition("-")[0]].dtype
    given = np.random.default_rng(0).normal(size=10_000).astype(np.float32)
    upper, lost = encode(name, given)
    np.testing.assert_array_equal(bits(upper), bits(given.astype(kind)))
    digits = ml_dtypes.finfo(kind).nmant + 1
    floor = 2.0**-25 if name.startswith("float16") else 0
    assert (np.abs(decode(name, [upper, lost]) - given) <= np.abs(given) * 2.0 ** -(2 * digits) + floor).all()
    special = np.array([np.inf, -np.inf, np.nan, 3.4e38, 1e30], np.float32)
    back = decode(name, encode(name, special))
    np.testing.assert_array_equal(np.isfinite(back[[0, 1, 2]]), [False] * 3)
    assert np.isnan(back[2])
    assert not np.isnan(np.delete(back, 2)).any()


@pytest.mark.parametrize("name", ["bfloat16-split8", "bfloat16-split16"])
@pytest.mark.parametrize("zero", [0x0000, 0x8000])
def test_a_weight_whose_parameter_was_set_to_0_is_0(name, zero):
    """Whatever its correction is; as one integer with a negative one that would be NaN."""
    least, most = (np.iinfo(CODECS[name].rows[1]).min, np.iinfo(CODECS[name].rows[1]).max)
    lower = np.array([least, -1, 0, 1, most], CODECS[name].rows[1])
    back = decode(name, [np.full(5, zero, np.uint16), lower])
    assert (np.abs(back) < np.finfo(np.float32).smallest_normal).all()
    assert (back[:3] == 0).all()
    assert (np.signbit(back) == (zero != 0)).all()


def test_split16_is_float32_and_shows_the_nearest_bfloat16():
    given = float32s()
    upper, lower = encode("bfloat16-split16", given)
    assert lower.dtype.itemsize == 2
    back, nan = decode("bfloat16-split16", [upper, lower]), np.isnan(given)
    np.testing.assert_array_equal(bits(back[~nan]), bits(given[~nan]))
    assert np.isnan(back[nan]).all()
    shown = upper.view(ml_dtypes.bfloat16)
    assert np.isnan(shown[nan]).all()
    near = given.astype(ml_dtypes.bfloat16)
    tie = (bits(given) & 0xFFFF) == 0x8000  # away from zero here, to even there
    np.testing.assert_array_equal(bits(shown[~nan & ~tie]), bits(near[~nan & ~tie]))
    assert (bits(shown[~nan & tie]) == (bits(given[~nan & tie]) >> 16) + 1).all()


def test_split8_is_the_upper_24_bits():
    given = float32s()
    given = given[np.isfinite(given)]
    for word in (0, 255):
        upper, lower = encode("bfloat16-split8", given, word)
        back = decode("bfloat16-split8", [upper, lower])
        assert lower.dtype.itemsize == 1
        np.testing.assert_array_equal(bits(back) & 0xFF, 0)
        off = bits(back).astype(np.int64) - bits(given)
        assert (np.abs(off) < 256).all()
    exact = bits(given) & np.uint32(0xFFFFFF00)
    np.testing.assert_array_equal(
        bits(decode("bfloat16-split8", encode("bfloat16-split8", exact.view("f4"), 77))), exact
    )


class TestScaled8:
    """What a block of 8-bit codes holds; `scale` is that of its absmax unless given."""

    @staticmethod
    def scale(name, numbers, before=0):
        absmax = (value(np.uint32(0)), value(np.uint32(0)))
        for number in np.asarray(numbers, np.float32):
            absmax = CODECS[name].finite_absmax(B, value(number), *absmax)
        return int(CODECS[name].rescale(B, value(np.uint32(before)), *absmax).array)

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    def test_every_code_goes_back_to_itself(self, name):
        codes = np.arange(256, dtype=np.uint8)
        for scale in (0, 1, 100, 200):
            numbers = decode(name, [codes], scale)
            for word in (0, 2**20 - 1, 123456):
                (again,) = encode(name, numbers, word, scale)
                finite = np.isfinite(numbers) & (numbers != 0)
                np.testing.assert_array_equal(again[finite], codes[finite])
        assert np.isnan(numbers).sum() == (2 if name == "int8" else 1)
        assert np.isinf(numbers).sum() == (2 if name == "int8" else 1)
        assert (numbers == 0).sum() == (2 if name == "int8" else 0)

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    @pytest.mark.parametrize("size", [1e-30, 1e-8, 1.0, 1e20, 1e38])
    def test_the_error_is_an_eighth_over_the_range(self, name, size):
        rng = np.random.default_rng(0)
        numbers = (size * 10 ** rng.uniform(-3.5, 0, 4096)).astype(np.float32)
        if name == "int8":
            numbers *= rng.choice([-1, 1], 4096).astype(np.float32)
        scale = self.scale(name, numbers)
        (codes,) = encode(name, numbers, every_word(4096), scale)
        assert codes.dtype == np.uint8
        off = np.abs(decode(name, [codes], scale) - numbers)
        assert (off <= np.abs(numbers) / 8 + size * 2.0**-12 / 8).all()

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    def test_means_are_kept(self, name):
        block = np.array([1.0, 0.3, 0.01, 1.234e-3, 1.9e-4, 1e-5], np.float32)
        scale = self.scale(name, block)
        words = np.arange(2**20, dtype=np.uint32)
        for number in block:
            (codes,) = encode(name, np.full(2**20, number), words, scale)
            numbers = decode(name, [codes], scale).astype(np.float64)
            assert abs(numbers.mean() - number) <= np.ptp(numbers) * 2**-15 + number * 1e-6

    def test_zero_is_zero_and_squares_are_never_zero(self):
        words = every_word(4096)
        (codes,) = encode("int8", np.zeros(4096), words, 100)
        assert (decode("int8", [codes], 100) == 0).all()
        tiny = np.full(4096, 1e-37, np.float32)
        (codes,) = encode("uint8", tiny, words, 100)
        assert (decode("uint8", [codes], 100) > 0).all()

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    def test_a_scale_stays_while_it_will_do(self, name):
        codec = CODECS[name]
        for exponent in range(-126, 128):
            absmax = np.float32(1.5 * 2.0**exponent)
            scale = self.scale(name, [absmax])
            assert 0 <= scale < 256
            binades = 27 if name == "int8" else 40  # of float32's, those below 2^-115 and 2^-118 included
            needed = exponent + 127 - binades
            assert scale == (needed + 1 if needed > 0 else 0)
            for times in (2.0, 1.0, 0.5, 0.25):
                if exponent + 127 - binades > 2 and exponent < 126:
                    assert self.scale(name, [absmax * np.float32(times)], scale) == scale
                    stale = codec.needs_rescale(
                        B, value(np.uint32(scale)), value(np.float32(absmax * times).view(np.uint32))
                    )
                    assert not stale.array
            for times in (2.5, 0.124):
                if exponent + 127 - binades > 2 and exponent < 126:
                    assert self.scale(name, [absmax * np.float32(times)], scale) != scale
                    stale = codec.needs_rescale(
                        B, value(np.uint32(scale)), value(np.float32(absmax * times).view(np.uint32))
                    )
                    assert stale.array

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    def test_the_top_of_the_range_does_not_become_infinite(self, name):
        for absmax in np.float32(2.0) ** np.arange(-100, 127, dtype=np.float32) * np.float32(13 / 8):
            scale = self.scale(name, [absmax])
            needed = max(scale - 1, 0)  # the tightest that would do
            for word in (0, 2**20 - 1):
                (code,) = encode(name, [absmax], word, needed)
                assert np.isfinite(decode(name, [code], needed)).all()

    @pytest.mark.parametrize("name", ["int8", "uint8"])
    def test_what_is_not_finite_keeps_what_it_is_and_its_block_as_it_is(self, name):
        numbers = np.random.default_rng(0).uniform(0.1, 1, BLOCK).astype(np.float32)
        clean = self.scale(name, numbers)
        special = [np.nan, np.inf, np.nan]
        if name == "int8":
            special += [-np.inf]
        marked = numbers.copy()
        marked[: len(special)] = special
        scale = self.scale(name, marked)
        assert scale == clean + 256
        assert CODECS[name].has_nonfinite(B, value(np.uint32(scale))).array
        words = every_word(BLOCK)
        (codes,), (others,) = encode(name, marked, words, scale), encode(name, numbers, words, clean)
        back = decode(name, [codes], scale)
        np.testing.assert_array_equal(back[: len(special)], special)
        np.testing.assert_array_equal(codes[len(special) :], others[len(special) :])
        assert self.scale(name, numbers, scale) == clean


def test_random_bits_depend_on_all_they_should_and_are_spread_evenly():
    def word(*numbers):
        return int(
            random_bits.bits_at(
                B, random_bits.key(B, *(value(np.int64(n)) for n in numbers[:4])), value(np.int64(numbers[4]))
            ).array
        )

    some = [
        (seed, step, tensor, first, i)
        for seed in (0, 1, 2**40)
        for step in (1, 2)
        for tensor in (0, 1)
        for first in (0, 2**32)
        for i in (0, 1)
    ]
    assert len({word(*numbers) for numbers in some}) == len(some)
    for width in (8, 13, 16, 20):
        for sequence in ([word(0, t, 0, 0, 0) for t in range(1024)], [word(0, 0, 0, 0, i) for i in range(1024)]):
            found = np.sort(np.array(sequence) % 2**width / 2**width)
            gaps = np.diff(np.concatenate([found, [1 + found[0]]]))
            assert gaps.max() < 8 / 1024 + 2**-width


def test_the_builder_refuses_what_no_codec_uses():
    assert evaluator.value(np.uint8(3)).type.width == 8
    assert int(B.add(value(np.uint32(2**32 - 1)), INT32(2)).array) == 1
    assert int(B.sext(value(np.uint8(255)), INT32).array) == 2**32 - 1
    assert int(B.ashr(value(np.uint32(2**31)), INT32(31)).array) == 2**32 - 1
    with pytest.raises(KeyError):
        B.icmp_signed("~", INT32(1), INT32(2))


class TestMemory:
    """The evaluator at the addresses of the host, as an LLVM IR builder at those of a device."""

    def pointer(self, b, array, i=0, lanes=1):
        element = evaluator.value(array).type
        address = value(np.uint64(array.ctypes.data))
        single = b.gep(b.inttoptr(address, element.as_pointer(1)), [value(np.int64(i))])
        return b.bitcast(single, ir.VectorType(element, lanes).as_pointer(1)) if lanes > 1 else single

    def test_one_element(self):
        array = np.arange(5, dtype=np.float32)
        loaded = B.load(self.pointer(B, array, 3), align=4)
        array[3] = 7
        assert (loaded.array, loaded.type) == (3, FLOAT)
        B.store(loaded, self.pointer(B, array, 1), align=4)
        np.testing.assert_array_equal(array, np.float32([0, 3, 2, 7, 4]))

    def test_a_vector(self):
        array = np.arange(8, dtype=np.uint32)
        whole = B.load(self.pointer(B, array, 4, lanes=4), align=4)
        parts = [B.extract_element(whole, INT32(k)) for k in range(4)]
        assert [(int(part.array), part.type) for part in parts] == [(k, INT32) for k in (4, 5, 6, 7)]
        turned = ir.Constant(whole.type, ir.Undefined)
        for k, part in enumerate(parts[::-1]):
            turned = B.insert_element(turned, part, INT32(k))
        B.store(turned, self.pointer(B, array, 0, lanes=4), align=4)
        assert array.tolist() == [7, 6, 5, 4, 4, 5, 6, 7]

    def test_what_is_misaligned_stops(self):
        array = np.zeros(9, np.float32)
        shift = array.ctypes.data % 16 == 0
        with pytest.raises(RuntimeError, match="misaligned"):
            B.load(self.pointer(B, array, int(shift), lanes=4), align=16)

    def test_stores_where_a_condition_holds(self):
        array, b = np.zeros(2, np.float32), Builder()
        for outer, inner in itertools.product((False, True), repeat=2):
            with b.if_then(value(np.bool_(outer))), b.if_then(value(np.bool_(inner))):
                b.store(FLOAT(1), self.pointer(b, array), align=4)
            assert array[0] == (outer and inner)
        b.store(FLOAT(2), self.pointer(b, array, 1), align=4)
        assert array[1] == 2

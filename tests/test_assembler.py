"""The assembler of the engine's kernels, whose numbers are tested in a browser."""

import pytest

from sharnn.web.assembler import ACCESSES, INDEXED, NESTED, PLAIN, assemble, parse
from sharnn.web.page import asset


def words(expression):
    if isinstance(expression, str):
        return {expression}
    return set().union(*map(words, expression))


def test_the_kernels_use_every_instruction_that_it_knows():
    known = {*PLAIN, *INDEXED, *ACCESSES, *NESTED}
    assert known <= words(parse(asset("kernels.wat")))


@pytest.mark.parametrize("name", ["f32.sqrt", "local.tee", "$add"])
def test_an_unknown_instruction(name):
    with pytest.raises(ValueError, match="unknown instruction"):
        assemble(f"(module (func ({name} (f32.const 1))))")


@pytest.mark.parametrize("instruction", ["(local.get $x)", "(call $f)", "(br $done)"])
def test_an_unknown_name(instruction):
    with pytest.raises(ValueError, match="unknown name"):
        assemble(f"(module (func {instruction}))")


def test_names_lead_to_indices():
    text = """(module
      (func $f (param $a i32) (param $b i32) (result i32) (local.get $b))
      (func $g (result i32)
        (block $out (loop $in (br $out)))
        (call $f (i32.const -1) (i32.const 64))))
    """
    code = assemble(text)
    assert bytes([0x20, 1, 0x0B]) in code, "local 1"
    assert bytes([0x02, 0x40, 0x03, 0x40, 0x0C, 1, 0x0B, 0x0B]) in code, "the block around the loop"
    assert bytes([0x41, 0x7F, 0x41, 0xC0, 0x00, 0x10, 0]) in code, "function 0, after its operands"

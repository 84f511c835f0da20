"""An assembler from WebAssembly's text format to its binary format, for the engine's kernels."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

Expression = Any  # a word, or a list of expressions

TYPES = {"i32": 0x7F, "f32": 0x7D, "v128": 0x7B}
FUNCTION, VOID = 0x60, 0x40
# Opcodes of instructions without immediate operands, and of those with one index.
PLAIN = {
    "i32.lt_u": [0x49],
    "i32.ge_u": [0x4F],
    "i32.add": [0x6A],
    "i32.shl": [0x74],
    "f32.add": [0x92],
    "f32.mul": [0x94],
    "f32.div": [0x95],
    "f32.max": [0x97],
    "v128.and": [0xFD, 0x4E],
    "i16x8.narrow_i32x4_s": [0xFD, 0x85, 0x01],
    "i32x4.splat": [0xFD, 0x11],
    "i32x4.add": [0xFD, 0xAE, 0x01],
    "i32x4.mul": [0xFD, 0xB5, 0x01],
    "i32x4.shl": [0xFD, 0xAB, 0x01],
    "i32x4.extend_low_i16x8_s": [0xFD, 0xA7, 0x01],
    "i32x4.extend_high_i16x8_s": [0xFD, 0xA8, 0x01],
    "i32x4.dot_i16x8_s": [0xFD, 0xBA, 0x01],
    "i32x4.trunc_sat_f32x4_s": [0xFD, 0xF8, 0x01],
    "f32x4.splat": [0xFD, 0x13],
    "f32x4.gt": [0xFD, 0x44],
    "f32x4.nearest": [0xFD, 0x6A],
    "f32x4.abs": [0xFD, 0xE0, 0x01],
    "f32x4.neg": [0xFD, 0xE1, 0x01],
    "f32x4.add": [0xFD, 0xE4, 0x01],
    "f32x4.sub": [0xFD, 0xE5, 0x01],
    "f32x4.mul": [0xFD, 0xE6, 0x01],
    "f32x4.div": [0xFD, 0xE7, 0x01],
    "f32x4.min": [0xFD, 0xE8, 0x01],
    "f32x4.max": [0xFD, 0xE9, 0x01],
    "f32x4.convert_i32x4_s": [0xFD, 0xFA, 0x01],
}
INDEXED = {
    "call": [0x10],
    "local.get": [0x20],
    "local.set": [0x21],
    "br": [0x0C],
    "br_if": [0x0D],
    "i32x4.extract_lane": [0xFD, 0x1B],
    "f32x4.extract_lane": [0xFD, 0x1F],
    "f32x4.replace_lane": [0xFD, 0x20],
}
# Opcodes of loads and stores, and log2 of the alignment.
ACCESSES = {
    "v128.load": ([0xFD, 0x00], 4),
    "v128.load8x8_s": ([0xFD, 0x01], 3),
    "v128.load32_splat": ([0xFD, 0x09], 2),
    "v128.store": ([0xFD, 0x0B], 4),
    "i32.store": ([0x36], 2),
    "f32.load": ([0x2A], 2),
    "f32.store": ([0x38], 2),
}
NESTED = {"block": 0x02, "loop": 0x03}
TYPE_SECTION, IMPORT_SECTION, FUNCTION_SECTION, EXPORT_SECTION, CODE_SECTION = 1, 2, 3, 7, 10


def assemble(text: str) -> bytes:
    r"""Assembles a module that imports one memory and exports functions.

    Only the instructions that the kernels use are known. Operands are written as nested
    expressions, which become instructions in the order of a stack machine: operands first.

    Args:
        text: a module in the text format.

    Raises:
        ValueError: the text has an unknown instruction or an unknown name.

    Source: WebAssembly Core Specification 2.0, text format and binary format.

    Example:
        >>> assemble('(module (import "page" "memory" (memory 1)))')[:4]
        b'\x00asm'
    """
    module = parse(text)
    functions = [_Function(field) for field in module if field[0] == "func"]
    names = {function.name: index for index, function in enumerate(functions) if function.name}
    imports = [_import(field) for field in module if field[0] == "import"]
    exports = [
        _text(function.exported) + bytes([0x00]) + unsigned(index)
        for index, function in enumerate(functions)
        if function.exported
    ]
    sections = {
        TYPE_SECTION: [function.type() for function in functions],
        IMPORT_SECTION: imports,
        FUNCTION_SECTION: [unsigned(index) for index in range(len(functions))],
        EXPORT_SECTION: exports,
        CODE_SECTION: [_sized(function.body(names)) for function in functions],
    }
    binary = b"\0asm" + struct.pack("<I", 1)
    for number, items in sections.items():
        if items:
            binary += bytes([number]) + _sized(_vector(items))
    return binary


def parse(text: str) -> list[Expression]:
    r"""Returns the fields of a module as nested lists of words.

    Example:
        >>> parse('(module (func $f ;; a comment\n (param $x i32)))')
        [['func', '$f', ['param', '$x', 'i32']]]
    """
    words = re.findall(r'[()]|"[^"]*"|[^\s()"]+', re.sub(r";;[^\n]*", "", text))
    stack: list[list[Expression]] = [[]]
    for word in words:
        if word == "(":
            stack.append([])
        elif word == ")":
            expression = stack.pop()
            stack[-1].append(expression)
        else:
            stack[-1].append(word)
    ((first, *fields),) = stack[0]
    if first != "module":
        raise ValueError(f"expected a module, got {first}")
    return fields


class _Function:
    """One function: its name, its type and its instructions."""

    def __init__(self, field: list[Expression]) -> None:
        rest = field[1:]
        self.name = rest.pop(0) if isinstance(rest[0], str) else ""
        self.exported = ""
        self.types: dict[str, list[str]] = {"param": [], "local": [], "result": []}
        self.locals: dict[str, int] = {}
        while rest and isinstance(rest[0], list) and rest[0][0] in ("export", *self.types):
            kind, *words = rest.pop(0)
            if kind == "export":
                self.exported = words[0].strip('"')
                continue
            self.types[kind].append(words[-1])
            if kind != "result":
                self.locals[words[0]] = len(self.locals)
        self.instructions = rest

    def type(self) -> bytes:
        """Returns the function's type in the binary format."""
        groups = (self.types["param"], self.types["result"])
        return bytes([FUNCTION]) + b"".join(
            _vector([bytes([TYPES[name]]) for name in group]) for group in groups
        )

    def body(self, functions: dict[str, int]) -> bytes:
        """Returns the locals and the instructions in the binary format."""
        declared = [unsigned(1) + bytes([TYPES[name]]) for name in self.types["local"]]
        code = bytearray()
        for instruction in self.instructions:
            code += b"".join(self._encode(instruction, functions, []))
        return _vector(declared) + bytes(code) + b"\x0b"  # end

    def _encode(
        self, instruction: list[Expression], functions: dict[str, int], labels: list[str]
    ) -> Iterator[bytes]:
        """Yields the binary format of an instruction, after that of its operands."""
        name, *rest = instruction
        if name in NESTED:
            label, *inner = rest
            yield bytes([NESTED[name], VOID])
            for part in inner:
                yield from self._encode(part, functions, [*labels, label])
            yield b"\x0b"
            return
        words = [word for word in rest if isinstance(word, str)]
        for operand in rest:
            if isinstance(operand, list):
                yield from self._encode(operand, functions, labels)
        if name in PLAIN:
            yield bytes(PLAIN[name])
        elif name in ACCESSES:
            opcode, alignment = ACCESSES[name]
            offset = int(words[0].removeprefix("offset=")) if words else 0
            yield bytes(opcode) + unsigned(alignment) + unsigned(offset)
        elif name in INDEXED:
            yield bytes(INDEXED[name]) + unsigned(self._index(words[0], functions, labels))
        elif name == "i32.const":
            yield b"\x41" + signed(int(words[0]))
        elif name == "f32.const":
            yield b"\x43" + struct.pack("<f", float(words[0]))
        else:
            raise ValueError(f"unknown instruction {name}")

    def _index(self, word: str, functions: dict[str, int], labels: Sequence[str]) -> int:
        """Returns the index of a local, a function or a label, or a number itself."""
        if not word.startswith("$"):
            return int(word)
        if word in labels:
            return labels[::-1].index(word)  # 0 is the innermost
        if word in self.locals:
            return self.locals[word]
        if word in functions:
            return functions[word]
        raise ValueError(f"unknown name {word}")


def _import(field: list[Expression]) -> bytes:
    """Returns an import of a memory in the binary format."""
    _, module, name, (kind, pages) = field
    if kind != "memory":
        raise ValueError(f"only a memory can be imported, not a {kind}")
    limits = b"\x00" + unsigned(int(pages))  # only a minimum
    return _text(module.strip('"')) + _text(name.strip('"')) + b"\x02" + limits


def unsigned(value: int) -> bytes:
    r"""Returns a number in LEB128: seven bits per byte, the lowest first.

    Example:
        >>> unsigned(300)
        b'\xac\x02'
    """
    encoded = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


def signed(value: int) -> bytes:
    r"""Returns a number in signed LEB128.

    Example:
        >>> signed(-1), signed(64)
        (b'\x7f', b'\xc0\x00')
    """
    encoded = bytearray()
    while True:
        low, value = value & 0x7F, value >> 7
        finished = (value == 0 and not low & 0x40) or (value == -1 and low & 0x40)
        encoded.append(low if finished else low | 0x80)
        if finished:
            return bytes(encoded)


def _vector(items: Sequence[bytes]) -> bytes:
    return unsigned(len(items)) + b"".join(items)


def _sized(content: bytes) -> bytes:
    return unsigned(len(content)) + content


def _text(word: str) -> bytes:
    return _sized(word.encode())

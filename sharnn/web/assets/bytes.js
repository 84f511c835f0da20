// Splits bytes into visible characters. No HTML is built here: all text is inserted as text.

/** Returns the length of the UTF-8 sequence that starts with a byte; 0 if none can. */
function sequenceLength(byte) {
  if (byte < 0x80) return 1;
  if (byte >= 0xc2 && byte < 0xe0) return 2;
  if (byte >= 0xe0 && byte < 0xf0) return 3;
  return byte >= 0xf0 && byte < 0xf5 ? 4 : 0;
}

// Many fonts lack the control pictures from U+2400 on, so the names are shown instead.
const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK " +
  "SYN ETB CAN EM SUB ESC FS GS RS US").split(" ");

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Splits bytes into glyphs: [{ start, length, shown, name, kind }]. */
function toGlyphs(bytes) {
  const glyphs = [];
  for (let start = 0; start < bytes.length; ) {
    let length = sequenceLength(bytes[start]) || 1;
    let character = null;
    try {
      character = utf8.decode(bytes.subarray(start, start + length));
    } catch {
      length = 1; // invalid UTF-8: a glyph of one byte
    }
    glyphs.push({ start, length, ...appearance(character, bytes[start]) });
    start += length;
  }
  return glyphs;
}

/** Returns how a character is shown, its name, and the kind of substitute, if it is one. */
function appearance(character, byte) {
  const hex = (number, digits) => number.toString(16).toUpperCase().padStart(digits, "0");
  if (character === null) return { shown: hex(byte, 2), name: `byte ${hex(byte, 2)}`, kind: "code" };
  const point = character.codePointAt(0);
  const code = `U+${hex(point, 4)}`;
  if (character === " ") return { shown: " ", name: "space", kind: "" };
  if (character === "\n") return { shown: "↵", name: "newline", kind: "mark" };
  if (character === "\t") return { shown: "⇥", name: "tab", kind: "mark" };
  const control = point === 0x7f ? "DEL" : CONTROLS[point];
  if (control) return { shown: control, name: `${control} (${code})`, kind: "code" };
  // Invisible characters, and those that change the writing direction, are shown as code points.
  if (/[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u.test(character)) {
    return { shown: code, name: code, kind: "code" };
  }
  if (/\p{M}/u.test(character)) return { shown: "◌" + character, name: code, kind: "" };
  return { shown: character, name: character, kind: "" };
}

/** Returns how a byte is shown in a list. */
function shownAs(byte) {
  const { shown, name } = toGlyphs(Uint8Array.of(byte))[0];
  return shown === " " ? name : shown;
}

/** Returns the index of the glyph that contains each byte. */
function glyphOfByte(glyphs, size) {
  const indices = new Uint32Array(size);
  glyphs.forEach((glyph, index) => indices.fill(index, glyph.start, glyph.start + glyph.length));
  return indices;
}

/** Returns bytes a to b as one line of text. */
function oneLine(glyphs, glyphIndex, a, b) {
  const from = glyphIndex[Math.max(0, a)];
  const to = glyphIndex[Math.min(glyphIndex.length - 1, b - 1)];
  let line = "";
  for (let index = from; index <= to; index++) {
    line += glyphs[index].kind === "code" ? "□" : glyphs[index].shown;
  }
  return line;
}

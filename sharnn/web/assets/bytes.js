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

const hexadecimal = (number, digits = 2) => number.toString(16).toUpperCase().padStart(digits, "0");

/** Returns how a character is shown, its name, and the kind of substitute, if it is one. */
function appearance(character, byte) {
  if (character === null) return { shown: hexadecimal(byte), name: `byte ${hexadecimal(byte)}`, kind: "code" };
  const point = character.codePointAt(0);
  const code = `U+${hexadecimal(point, 4)}`;
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

/** Returns the bytes before `end` that begin a character without ending it. */
function unfinished(bytes, end) {
  for (let start = end - 1; start >= Math.max(0, end - 3); start--) {
    const length = sequenceLength(bytes[start]);
    if (length) return bytes.slice(length > end - start ? start : end, end);
  }
  return bytes.slice(end, end);
}

/** Returns the first byte of the character around a byte, and the byte after its last. */
function characterAround({ glyphs, glyphIndex }, index) {
  const { start, length } = glyphs[glyphIndex[index]];
  return [start, start + length];
}

/** Returns how a byte is shown in a list, if `before` are the bytes of a character that it may end. */
function shownAs(byte, before = []) {
  const [{ length, shown, name }] = toGlyphs(Uint8Array.of(...before, byte));
  if (length <= before.length) return shownAs(byte); // it doesn't end the character
  if (sequenceLength(byte) > 1) return `${shown}…`; // it begins a character
  return shown === " " ? name : shown;
}

/** Returns the index of the glyph that contains each byte. */
function glyphOfByte(glyphs, size) {
  const indices = new Uint32Array(size);
  glyphs.forEach((glyph, index) => indices.fill(index, glyph.start, glyph.start + glyph.length));
  return indices;
}

/** Returns bytes and their glyphs, with one more glyph for the next byte. */
function withNext(bytes) {
  const glyphs = toGlyphs(bytes);
  glyphs.push({ start: bytes.length, length: 1, shown: "▌", name: "the next byte", kind: "mark" });
  return { bytes, glyphs, glyphIndex: glyphOfByte(glyphs, bytes.length + 1) };
}

/**
 * Returns bytes a to b, without b, as one line of text. Of a character that b divides, the bytes
 * before b are shown in hexadecimal.
 */
function oneLine({ bytes, glyphs, glyphIndex }, a, b) {
  let line = "";
  for (let index = a < b ? glyphIndex[Math.max(0, a)] : glyphs.length; glyphs[index]?.start < b; index++) {
    const { start, length, kind, shown } = glyphs[index];
    if (start + length > b) line += `‹${Array.from(bytes.slice(start, b), (byte) => hexadecimal(byte)).join(" ")}›`;
    else line += kind === "code" ? "□" : shown;
  }
  return line;
}

// Bytes as characters that can be seen. Nothing here makes HTML: all text goes in as text.

/** Length of the UTF-8 sequence that a first byte announces; 0 where it can't be a first byte. */
function sequenceLength(byte) {
  if (byte < 0x80) return 1;
  if (byte >= 0xc2 && byte < 0xe0) return 2;
  if (byte >= 0xe0 && byte < 0xf0) return 3;
  return byte >= 0xf0 && byte < 0xf5 ? 4 : 0;
}

// Their pictures, from U+2400 on, are missing in many fonts.
const CONTROLS = ("NUL SOH STX ETX EOT ENQ ACK BEL BS HT LF VT FF CR SO SI DLE DC1 DC2 DC3 DC4 NAK " +
  "SYN ETB CAN EM SUB ESC FS GS RS US").split(" ");

const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Cuts bytes into characters: [{ start, length, shown, name, kind }]. */
function glyphs(bytes) {
  const found = [];
  for (let start = 0; start < bytes.length; ) {
    let length = sequenceLength(bytes[start]) || 1;
    let character = null;
    try {
      character = utf8.decode(bytes.subarray(start, start + length));
    } catch {
      length = 1; // no UTF-8: this byte stands for itself
    }
    found.push({ start, length, ...appearance(character, bytes[start]) });
    start += length;
  }
  return found;
}

/** How a character looks in the text, what it is called, and whether it is a stand-in. */
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
  // What has no shape, or turns the writing around, is shown by its number.
  if (/[\p{C}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u.test(character)) {
    return { shown: code, name: code, kind: "code" };
  }
  if (/\p{M}/u.test(character)) return { shown: "◌" + character, name: code, kind: "" };
  return { shown: character, name: character, kind: "" };
}

/** For each byte the place of its glyph in the list. */
function glyphOfByte(list, size) {
  const places = new Uint32Array(size);
  list.forEach((glyph, place) => places.fill(place, glyph.start, glyph.start + glyph.length));
  return places;
}

/** Bytes a to b as one line of text. */
function oneLine(list, places, a, b) {
  const from = places[Math.max(0, a)];
  const to = places[Math.min(places.length - 1, b - 1)];
  let line = "";
  for (let place = from; place <= to; place++) {
    line += list[place].kind === "code" ? "□" : list[place].shown;
  }
  return line;
}

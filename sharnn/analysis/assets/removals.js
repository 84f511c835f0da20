// Sets of rows to remove from the query that predicts a byte. Row r is that of byte r of the text.

/** Returns the `count` rows with the largest weights. */
function heaviest({ first, weights }, count) {
  const order = Array.from(weights.keys()).sort((a, b) => weights[b] - weights[a] || b - a);
  return order.slice(0, count).map((i) => first + i);
}

/** Returns the places in `bytes`, before `end`, at which a stretch of them occurs. */
function occurrences(bytes, wanted, end) {
  const places = [];
  for (let at = 0; at + wanted.length <= end; at++) {
    if (wanted.every((byte, j) => bytes[at + j] === byte)) places.push(at);
  }
  return places;
}

/** Returns the rows of the earlier occurrences of the bytes before `target`, with the byte after each. */
function repeated(bytes, target, length, first) {
  if (target < length) return [];
  const rows = new Set();
  for (const at of occurrences(bytes, bytes.slice(target - length, target), target - 1)) {
    for (let row = Math.max(first, at); row <= at + length; row++) rows.add(row);
  }
  return [...rows];
}

/** Returns all visible rows in a random order, which is the same for the same target and number. */
function shuffled({ first, weights }, target, number) {
  const seed = target * LONGEST + number;
  const rows = Array.from(weights.keys(), (i) => first + i);
  for (let i = rows.length - 1; i > 0; i--) {
    const j = Math.floor(uniform(seed, i) * (i + 1));
    [rows[i], rows[j]] = [rows[j], rows[i]];
  }
  return rows;
}

/** Returns the first and the last byte of the word around a byte: letters, digits, and beyond ASCII. */
function wordAround(bytes, index) {
  const inWord = (byte) => byte >= 0x80 || /[0-9A-Za-z]/.test(String.fromCharCode(byte));
  let [a, b] = [index, index];
  if (inWord(bytes[index])) {
    while (a > 0 && inWord(bytes[a - 1])) a--;
    while (b + 1 < bytes.length && inWord(bytes[b + 1])) b++;
  }
  return [a, b];
}

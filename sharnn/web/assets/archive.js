// Archives of format 2, whose counterpart is sharnn/compression/container.py. All numbers are
// little-endian.
//
// Header: magic (4 bytes), format (1), method (1), lanes (2), length of the content (8), fingerprint of
// the model (8), checksum of these 24 bytes (8).
// Frames follow, each with the size of its code (4), a checksum of the header, the frame's number and its
// code (8), a checksum of its content (8), and the code.
// The content is cut into lanes, which are coded in step: a byte of each, the first lane first.

const MAGIC = [0x9d, 0x53, 0x48, 0x41];
const FORMAT = 2;
const [STORED, CODED, LEARNED, MIXED] = [0, 1, 2, 4]; // the method is a sum of them
const HEADER_BYTES = 32;
const FRAME_HEADER_BYTES = 20;
const CHECKSUM_BYTES = 8;
const MAX_LANES = 1024;
const FRAME_CONTENT = 65536; // bytes

const isArchive = (bytes) => MAGIC.every((byte, i) => bytes[i] === byte);

/** An archive that can't be opened; the message is one line for the reader. */
class Refusal extends Error {}

function join(parts) {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

const checksum = (...parts) => sha256(join(parts)).subarray(0, CHECKSUM_BYTES);
const areEqual = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
const viewOf = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function uint32(number) {
  const bytes = new Uint8Array(4);
  viewOf(bytes).setUint32(0, number, true);
  return bytes;
}

/** The lanes of a content: contiguous, the longest first, and their lengths differ by at most 1. */
class Lanes {
  constructor(count, length) {
    this.count = count;
    this.shortest = Math.floor(length / count);
    this.longer = length - count * this.shortest; // number of lanes with one more byte
    this.steps = this.shortest + (this.longer > 0 ? 1 : 0);
    this.stepsPerFrame = Math.max(1, Math.floor(FRAME_CONTENT / count));
  }

  /** Returns the number of lanes that have a byte at a step. */
  at(step) {
    return step < this.shortest ? this.count : this.longer;
  }

  /** Returns the number of bytes before a step. */
  before(step) {
    return Math.min(step, this.shortest) * this.count + (step > this.shortest ? this.longer : 0);
  }

  /**
   * Returns the content in place, from bytes in the order in which they are coded, and the number of its
   * bytes before the first gap. If the lanes are not complete, there are zeros between them.
   */
  arrange(coded) {
    const sizes = Array.from(
      { length: this.count }, (_, lane) => Math.max(0, Math.ceil((coded.length - lane) / this.count)));
    const starts = sizes.map((_, lane) => lane * this.shortest + Math.min(lane, this.longer));
    const content = new Uint8Array(Math.max(0, ...sizes.map((size, lane) => size && starts[lane] + size)));
    coded.forEach((byte, i) => (content[starts[i % this.count] + Math.floor(i / this.count)] = byte));
    const whole = content.length === coded.length;
    return { content, usable: whole ? content.length : sizes[0] };
  }
}

/** Returns an archive with one lane from the codes of its frames; it is stored if that is as small. */
function makeArchive(content, codes, fingerprint) {
  const parts = [];
  for (let start = 0; start < content.length; start += FRAME_CONTENT) {
    parts.push(content.subarray(start, start + FRAME_CONTENT));
  }
  const size = codes.reduce((sum, code) => sum + code.length, 0);
  const [method, all] = size < content.length ? [CODED, codes] : [STORED, parts];
  const start = new Uint8Array(HEADER_BYTES - CHECKSUM_BYTES);
  start.set(MAGIC);
  const view = viewOf(start);
  view.setUint8(4, FORMAT);
  view.setUint8(5, method);
  view.setUint16(6, 1, true); // lanes
  view.setBigUint64(8, BigInt(content.length), true);
  start.set(fingerprint, 16);
  const header = join([start, checksum(start)]);
  const frames = all.flatMap((code, i) =>
    [uint32(code.length), checksum(header, uint32(i), code), checksum(parts[i]), code]);
  return join([header, ...frames]);
}

/** Packs a content. Yields the share that is coded so far, and returns the archive. */
function* pack(content, lane, fingerprint) {
  const codes = [];
  for (let start = 0; start < content.length; start += FRAME_CONTENT) {
    const encoder = new Encoder();
    for (let i = start; i < Math.min(start + FRAME_CONTENT, content.length); i++) {
      encoder.write(lane.frequencies, content[i]);
      lane.read(content[i]);
      yield (i + 1) / content.length;
    }
    codes.push(encoder.finish());
  }
  return makeArchive(content, codes, fingerprint);
}

/** Returns the parts of the header of an archive: { header, method, lanes, length }. */
function readHeader(archive, fingerprint) {
  if (!isArchive(archive) || archive.length === MAGIC.length) throw new Refusal("This is not an archive of sharnn.");
  if (archive[4] !== FORMAT) {
    throw new Refusal(`The archive has format ${archive[4]}, and this page opens format ${FORMAT}: use sharnn decompress.`);
  }
  const header = archive.slice(0, HEADER_BYTES);
  const sumStart = HEADER_BYTES - CHECKSUM_BYTES;
  if (!areEqual(checksum(header.subarray(0, sumStart)), header.subarray(sumStart))) {
    throw new Refusal(`The archive is damaged in its first ${HEADER_BYTES} bytes.`);
  }
  const view = viewOf(header);
  const method = view.getUint8(5);
  const lanes = view.getUint16(6, true);
  const length = Number(view.getBigUint64(8, true));
  if (method & LEARNED) {
    throw new Refusal("The model kept learning while it packed this archive: open it with sharnn decompress.");
  }
  if (method & MIXED) {
    throw new Refusal("This archive mixes the model with other predictions: open it with sharnn decompress.");
  }
  if (method > CODED) throw new Refusal(`The archive has the unknown method ${method}.`);
  if (lanes < 1 || lanes > Math.max(1, Math.min(length, MAX_LANES))) {
    throw new Refusal(`The archive is invalid: it has ${lanes} lanes.`);
  }
  if (!areEqual(header.subarray(16, sumStart), fingerprint)) {
    throw new Refusal("The archive was packed with another model.");
  }
  // A forged length must not exhaust the memory.
  if (length > Math.floor((archive.length - HEADER_BYTES) / FRAME_HEADER_BYTES) * FRAME_CONTENT) {
    throw new Refusal("The archive is truncated: most of it is missing.");
  }
  return { header, method, lanes, length };
}

/**
 * Opens an archive. Yields the share that is restored so far, and returns { content, usable, length,
 * problem }: if there is a problem, the content is what came before it in each lane, of which the first
 * `usable` bytes are without a gap.
 *
 * @param open  returns lanes of a model: as many as the first argument says, and not longer than the second
 */
function* unpack(archive, fingerprint, open) {
  const { header, method, lanes: count, length } = readHeader(archive, fingerprint);
  const lanes = new Lanes(count, length);
  const models = method === CODED ? open(count, lanes.steps) : [];
  const restored = [];
  let place = HEADER_BYTES;
  let problem = "";
  for (let first = 0; first < lanes.steps; first += lanes.stepsPerFrame) {
    const end = Math.min(first + lanes.stepsPerFrame, lanes.steps);
    const frame = readFrame(archive, header, restored.length, place);
    const size = lanes.before(end) - lanes.before(first);
    let content = frame?.code;
    if (frame && method === CODED) {
      content = new Uint8Array(size);
      const decoder = new Decoder(frame.code);
      let done = 0;
      for (let step = first; step < end; step++) {
        for (let lane = 0; lane < lanes.at(step); lane++) {
          const symbol = decoder.read(models[lane].frequencies);
          content[done++] = symbol;
          if (step + 1 < lanes.steps) models[lane].read(symbol);
          yield (lanes.before(first) + done) / length;
        }
      }
    }
    if (!frame || content.length !== size || !areEqual(checksum(content), frame.sum)) {
      problem = `The archive is truncated or damaged at byte ${place}.`;
      break;
    }
    restored.push(content);
    place = frame.end;
  }
  if (!problem && place < archive.length) problem = `Other bytes follow the archive, from byte ${place} on.`;
  return { ...lanes.arrange(join(restored)), length, problem };
}

/** Returns a frame: { code, sum, end }, with the checksum of its content; null if it is damaged. */
function readFrame(archive, header, index, place) {
  const start = place + FRAME_HEADER_BYTES;
  if (start > archive.length) return null;
  const end = start + viewOf(archive).getUint32(place, true);
  const code = archive.subarray(start, end);
  const [sum, contentSum] = [4, 12].map((i) => archive.subarray(place + i, place + i + CHECKSUM_BYTES));
  if (end > archive.length || !areEqual(checksum(header, uint32(index), code), sum)) return null;
  return { code, sum: contentSum, end };
}

// Archives in the page: the text or a file is packed and saved, and archives are opened.

const MOST_PACKED = 200_000; // bytes of a file
const MOST_OPENED = 2 ** 24; // bytes of an archive
const ENDING = ".sha";

/** Lets the reader save bytes as a file. */
function saveFile(bytes, name) {
  const url = URL.createObjectURL(new Blob([bytes], { type: "application/octet-stream" }));
  const link = make("a", "", { href: url, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000); // the browser may read it later
}

/** Returns true if bytes are a text. */
function isReadable(bytes) {
  try {
    return !utf8.decode(bytes).includes("\0");
  } catch {
    return false;
  }
}

/** Returns bytes for reading: each character as `toGlyphs` shows it, and line ends. */
const readable = (bytes) => toGlyphs(bytes).map(({ shown, name }) =>
  shown + (name === "newline" ? "\n" : "")).join("");

class Archives {
  constructor(session, payload) {
    Object.assign(this, { session, payload });
    this.source = null; // { name, bytes, size }: what the archive will hold
    this.ready = null; // the archive, if it has been made already
    this.opened = null; // { name, bytes } of the archive that was opened last
    this.turn = 0;
    this.stop = null; // ends the work in progress
    $("save").onclick = () => this.save();
    $("open").onclick = () => $("archive").click();
    $("archive").onchange = async ({ target }) => {
      const [file] = target.files;
      target.value = ""; // the same file can be chosen again
      if (file) await this.open(file);
    };
    $("cancel").onclick = () => this.stop();
    $("save-file").onclick = () => saveFile(this.opened.bytes, this.opened.name);
  }

  /** Sets what the archive will hold, and the archive itself if it has been made. */
  hold(name, bytes, ready = null, size = bytes.length) {
    this.source = { name, bytes, size };
    this.ready = ready;
    $("to-save").textContent = `${name}: ${plural(size, "byte")}` + (
      ready ? `, in an archive of ${thousands(ready.length)}.`
        : size > MOST_PACKED ? `. This page packs at most ${thousands(MOST_PACKED)}.` : ".");
    this.showButtons();
  }

  /** Saves the archive of the text or file, which is packed first if needed. */
  async save() {
    const { source, payload: { fingerprint } } = this;
    let { ready } = this;
    if (!ready) {
      const answer = await this.work("pack", { content: source.bytes, fingerprint });
      if (!answer) return;
      ready = answer.archive;
      if (this.source === source) this.hold(source.name, source.bytes, ready);
    }
    const name = source.name + ENDING;
    saveFile(ready, name);
    $("outcome").textContent = `${name} saved: ${plural(source.size, "byte")} became ${thousands(ready.length)}` +
      (source.size ? `, ${((8 * ready.length) / source.size).toFixed(2)} bits per byte.` : ".");
  }

  /** Opens an archive, and shows what it holds. */
  async open(file) {
    this.opened = null;
    $("opened").hidden = $("save-file").hidden = true;
    $("outcome").textContent = file.size > MOST_OPENED ? "The file is too large for this page: use sharnn decompress." : "";
    if (file.size > MOST_OPENED) return;
    const archive = new Uint8Array(await file.arrayBuffer());
    const { fingerprint } = this.payload;
    const answer = await this.work("unpack", { archive, fingerprint });
    if (answer?.refusal) $("outcome").textContent = answer.refusal;
    else if (answer) this.show(file.name, answer);
  }

  /** Shows the content of an archive, or what came before a damage: `usable` bytes without a gap. */
  show(name, { content, usable, length, problem }) {
    const stem = name.endsWith(ENDING) ? name.slice(0, -ENDING.length) : `${name}.restored`;
    this.opened = { name: stem, bytes: content };
    const cut = problem ? unfinished(content, usable).length : 0; // of a character
    const isText = isReadable(content.subarray(0, usable - cut));
    const found = usable ? `${thousands(usable)} of ${plural(length, "byte")}` : "Nothing";
    $("outcome").textContent =
      (problem ? `${problem} ${found} before that restored.` : `${stem} restored: ${plural(length, "byte")}.`) +
      (!isText ? " It is not text." : usable > LONGEST ? ` The first ${thousands(LONGEST)} bytes:` : "");
    $("opened").hidden = !isText || !usable;
    $("opened").textContent = isText ? readable(content.subarray(0, Math.min(usable, LONGEST))) : "";
    $("opened").scrollTop = 0;
    $("save-file").hidden = Boolean(problem) && !usable;
  }

  /**
   * Sends a request to a worker of its own, so that the other one can read a text meanwhile. Returns null
   * if the work is cancelled, or other work begins.
   */
  async work(type, fields) {
    const turn = ++this.turn;
    this.stop?.();
    this.stop = null;
    this.showButtons();
    $("outcome").textContent = "";
    await this.session.start();
    if (turn !== this.turn) return null;
    const { session: { file }, payload } = this;
    const engine = new Engine(payload.worker);
    const request = { file, kernels: fromBase64(payload.kernels), ...fields };
    const begin = performance.now();
    try {
      return await new Promise((finish, fail) => {
        this.stop = () => finish(null);
        this.showProgress(0);
        this.showButtons();
        engine.request(type, request, ({ share }) => this.showProgress(share, performance.now() - begin))
          .then(finish, fail);
      });
    } finally {
      engine.stop();
      if (turn === this.turn) {
        this.stop = null;
        this.showButtons();
      }
    }
  }

  /** Shows the share of the work that is done, after some milliseconds. */
  showProgress(share, passed = 0) {
    const seconds = share ? (passed / 1000) * (1 / share - 1) : 0;
    const left = seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.round(seconds / 60)} min`;
    $("progress").value = share;
    $("done").textContent = share ? `${percent(share)}, ${left} left` : "";
  }

  /** Shows the buttons that can be used. The focus stays with them. */
  showButtons() {
    const working = this.stop !== null;
    const { activeElement } = document;
    if (working && $("work").hidden) this.before = activeElement;
    $("work").hidden = !working;
    $("open").disabled = working;
    $("save").disabled = working || this.source.size > MOST_PACKED;
    if (working && [$("save"), $("open")].includes(activeElement)) $("cancel").focus();
    if (!working && activeElement === $("cancel")) (this.before ?? $("open")).focus();
  }
}

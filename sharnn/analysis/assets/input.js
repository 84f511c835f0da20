// Mouse, touch and keyboard input, and the size of the frame around the page.

/** Calls `act` with the horizontal position of a press or drag, as a share of the width. */
function onDrag(element, act) {
  const share = (event) => {
    const box = element.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  element.addEventListener("pointerdown", (event) => act(share(event)));
  element.addEventListener("pointermove", (event) => event.buttons && act(share(event)));
}

function connect(explorer) {
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches("input, textarea, select");
    if (typing || event.ctrlKey || event.altKey || event.metaKey || !explorer.head) return;
    if (event.key === "/") {
      event.preventDefault();
      $("find").focus();
    }
    if (event.key === "n") explorer.nextPeak(1);
    if (event.key === "p") explorer.nextPeak(-1);
  });
  $("search").addEventListener("submit", (event) => {
    event.preventDefault();
    if (explorer.head) explorer.find($("find").value);
  });
  onDrag($("minimap"), (share) => {
    if (!explorer.head) return;
    const distance = Math.max(1, Math.ceil((1 - share) * explorer.head.memoryLimit));
    explorer.look(Math.max(0, explorer.target - distance));
  });
  /** Returns the target at a share of the overview's width. */
  const atShare = (share) => {
    const { width } = explorer.canvas.overview;
    const { numTargets } = explorer.trace;
    const i = Math.floor(((share * width - MARGIN) / (width - MARGIN)) * numTargets);
    return Math.min(numTargets - 1, Math.max(0, i));
  };
  onDrag($("overview"), (share) => explorer.head && explorer.choose(atShare(share)));
  $("overview").addEventListener("mousemove", (event) => {
    if (!explorer.head) return;
    const i = atShare(event.offsetX / explorer.canvas.overview.width);
    $("under-overview").textContent = `${describeBits(explorer.trace, explorer.trace.first + i)}, ` +
      `effective number of positions ${short(explorer.head.effective[i])}`;
  });
  $("overview").addEventListener("keydown", (event) => explorer.targetPane?.key(event));
  new ResizeObserver(() => {
    Object.values(explorer.canvas).forEach((canvas) => canvas.fit());
    if (explorer.chosen !== undefined) explorer.redraw();
  }).observe($("views"));
}

/** Returns the window whose address the reader sees, null if it belongs to another origin. */
function visibleWindow() {
  try {
    return window.parent.location.href && window.parent;
  } catch {
    return null;
  }
}

/** Returns the target that the address names, such as page.html#byte-120; null if it names none. */
function targetOfAddress() {
  const match = /^#byte-(\d+)$/.exec(visibleWindow()?.location.hash ?? "");
  return match && Number(match[1]);
}

/** Selects the target that the address names, also when the reader changes the address. */
function followAddress(explorer) {
  const follow = () => {
    const i = targetOfAddress();
    if (i === null || !explorer.opened) return;
    explorer.choose(i);
    // The address names no element, so the browser has not scrolled to this page in its frame.
    window.frameElement?.scrollIntoView();
  };
  visibleWindow()?.addEventListener("hashchange", follow);
  follow();
}

/** Changes the address so that it names a target, and can be shared. */
function writeAddress(i) {
  try {
    visibleWindow()?.history.replaceState(null, "", `#byte-${i}`);
  } catch { /* a document without an address of its own */ }
}

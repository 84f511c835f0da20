// The drawings: the map of the memory, the overview of all bytes, and the weight by distance.

const MARGIN = 46; // space for the labels of the vertical axis
const STRIP = 56; // height of the curve under the overview

/**
 * A canvas at the resolution of the screen. Its size is read only when the layout changes, not for
 * each drawing, because reading it forces the browser to lay out the page.
 */
class SharpCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.height = canvas.height;
    canvas.style.height = `${this.height}px`;
    this.fit();
  }

  fit() {
    const ratio = window.devicePixelRatio || 1;
    this.width = Math.max(50, this.canvas.clientWidth);
    this.canvas.width = Math.round(this.width * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    this.draw = this.canvas.getContext("2d");
    this.draw.scale(ratio, ratio);
    this.draw.font = "11px system-ui, sans-serif";
  }

  /** Clears the canvas and returns { draw, width, height }, in CSS pixels. */
  clear() {
    this.draw.clearRect(0, 0, this.width, this.height);
    return this;
  }
}

/** Returns the labelled distances of a logarithmic axis: 1, 10, 100, ... and the last. */
function distanceTicks(limit) {
  const ticks = [];
  for (let d = 1; d <= limit / 4; d *= 10) ticks.push(d);
  return [...ticks, limit];
}

/** Draws the memory from oldest to newest byte: one bar per pixel, for its largest weight. */
function drawMinimap(canvas, head, visible, i, peaks, marked, colours) {
  const { draw, width, height } = canvas.clear();
  const codes = head.codesOf(i);
  const columns = Math.floor(width);
  const tallest = new Uint8Array(columns); // codes
  for (let d = 1; d <= visible; d++) {
    const x = Math.min(columns - 1, Math.floor((1 - (d - 0.5) / head.memoryLimit) * columns));
    if (codes[d - 1] > tallest[x]) tallest[x] = codes[d - 1];
  }
  const top = Math.log2(Math.max(2, head.largestRelative));
  const base = height - 13; // space for the labels
  for (let x = 0; x < columns; x++) {
    const relative = head.weightOf[tallest[x]] * visible;
    if (relative === 0) continue;
    draw.fillStyle = colours.weights[weightLevel(relative, head.largestRelative)] || colours.line;
    const size = 3 + Math.max(0, Math.log2(relative) / top) * (base - 8);
    draw.fillRect(x, base - size, 1, size);
  }
  draw.fillStyle = colours.front;
  const position = (distance) => (1 - (distance - 0.5) / head.memoryLimit) * width;
  peaks.forEach(({ distance }) => {
    const x = position(distance);
    draw.beginPath();
    draw.moveTo(x - 3, 0);
    draw.lineTo(x + 3, 0);
    draw.lineTo(x, 5);
    draw.fill();
  });
  if (marked) draw.fillRect(position(marked) - 0.5, 0, 1, base);
  draw.fillStyle = colours.soft;
  draw.textBaseline = "bottom";
  draw.textAlign = "left";
  draw.fillText(`${thousands(head.memoryLimit)} bytes back`, 3, height);
  draw.textAlign = "right";
  draw.fillText("previous byte", width - 3, height);
  draw.textAlign = "center";
  draw.fillText(thousands(Math.round(head.memoryLimit / 2)), width / 2, height);
}

/** Returns a canvas with the overview's colours, one pixel for each target and band. */
function overviewPicture({ overviewEdges: edges, numTargets, numVisible }, head, colours) {
  const bands = edges.length - 1;
  const picture = Object.assign(document.createElement("canvas"), { width: numTargets, height: bands });
  const draw = picture.getContext("2d");
  for (let i = 0; i < numTargets; i++) {
    for (let band = 0; band < bands; band++) {
      const even = evenShare(edges[band], edges[band + 1], numVisible[i]);
      if (even <= 0) continue;
      const relative = head.mass[i * bands + band] / even;
      draw.fillStyle = colours.weights[weightLevel(relative, head.strongBand)] || "transparent";
      draw.fillRect(i, band, 1, 1);
    }
  }
  return picture;
}

/** Draws the overview, targets across and distances down. It does not depend on the selection. */
function drawOverview(canvas, trace, head, colours) {
  const { draw, width, height } = canvas.clear();
  const { memoryLimit, numTargets, overviewEdges: edges } = trace;
  const picture = overviewPicture(trace, head, colours);
  const inner = width - MARGIN;
  const bottom = height - STRIP;
  const y = (distance) => (bottom * Math.log(distance)) / Math.log(memoryLimit + 1);
  draw.imageSmoothingEnabled = false;
  for (let band = 0; band < picture.height; band++) {
    const top = y(edges[band]);
    draw.drawImage(picture, 0, band, numTargets, 1, MARGIN, top, inner, y(edges[band + 1]) - top);
  }
  draw.fillStyle = colours.soft;
  draw.textAlign = "right";
  draw.textBaseline = "middle";
  for (const tick of distanceTicks(memoryLimit)) {
    const at = Math.min(bottom - 7, Math.max(7, y(tick)));
    draw.fillText(thousands(tick), MARGIN - 5, at);
  }
  // The curve below: the effective number of positions.
  const low = height - 4;
  const scale = (low - bottom - 8) / memoryLimit;
  draw.fillText(thousands(memoryLimit), MARGIN - 5, bottom + 10);
  draw.fillText("0", MARGIN - 5, low - 4);
  draw.strokeStyle = colours.line;
  draw.strokeRect(MARGIN + 0.5, bottom + 0.5, inner - 1, height - bottom - 1);
  draw.strokeStyle = `rgb(${colours.blue})`;
  draw.beginPath();
  for (let i = 0; i < numTargets; i++) {
    draw.lineTo(MARGIN + ((i + 0.5) / numTargets) * inner, low - head.effective[i] * scale);
  }
  draw.stroke();
}

/** Draws the share of the weight within each distance: this byte, mean of all bytes, even shares. */
function drawMass(canvas, trace, head, chosen, colours) {
  const { draw, width, height } = canvas.clear();
  const { memoryLimit, overviewEdges: edges } = trace;
  const bands = edges.length - 1;
  const [left, right, top, bottom] = [MARGIN, width - 8, 8, height - 32];
  const x = (distance) => left + ((right - left) * Math.log(distance)) / Math.log(Math.max(2, memoryLimit));
  const y = (share) => bottom - (bottom - top) * share;
  draw.fillStyle = colours.soft;
  draw.strokeStyle = colours.line;
  draw.textBaseline = "middle";
  draw.textAlign = "right";
  for (const share of [0, 0.5, 1]) {
    draw.fillText(`${100 * share}%`, left - 5, y(share));
    draw.beginPath();
    draw.moveTo(left, y(share));
    draw.lineTo(right, y(share));
    draw.stroke();
  }
  draw.textAlign = "center";
  draw.textBaseline = "top";
  for (const tick of distanceTicks(memoryLimit)) {
    draw.fillText(thousands(tick), Math.min(right - 12, x(tick)), bottom + 4);
  }
  draw.fillText("distance (bytes back)", (left + right) / 2, bottom + 18);

  const own = head.mass.subarray(chosen * bands, (chosen + 1) * bands);
  const even = edges.slice(0, -1).map((near, band) =>
    evenShare(near, edges[band + 1], trace.numVisible[chosen]));
  const curves = [
    ["this byte", own, `rgb(${colours.more})`, []],
    ["mean of all bytes", head.meanMass, `rgb(${colours.blue})`, [6, 4]],
    ["even shares", even, colours.soft, [2, 3]],
  ];
  draw.textAlign = "left";
  draw.textBaseline = "middle";
  draw.lineWidth = 2;
  curves.forEach(([name, mass, colour, dash], line) => {
    draw.strokeStyle = colour;
    draw.setLineDash(dash);
    draw.beginPath();
    let sum = 0;
    for (let band = 0; band < bands; band++) {
      sum += mass[band];
      draw.lineTo(x(edges[band + 1] - 1), y(Math.min(1, sum)));
    }
    draw.stroke();
    draw.beginPath();
    draw.moveTo(left + 10, top + 12 + 16 * line);
    draw.lineTo(left + 40, top + 12 + 16 * line);
    draw.stroke();
    draw.fillStyle = colours.front;
    draw.fillText(name, left + 46, top + 12 + 16 * line);
  });
  draw.setLineDash([]);
  draw.lineWidth = 1;
}

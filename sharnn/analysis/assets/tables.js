// The tables: the effect of removing remembered positions.

/**
 * Returns a cell with extra bits, as a number and as a bar that is longest at `largest`. With `std`
 * they are the mean and the deviation over random positions.
 */
function effectCell(bits, largest, std = null) {
  const kind = `bar${std === null ? "" : " random"}${bits < 0 ? " gain" : ""}`;
  const cell = make("td", "", { class: kind });
  const length = make("span");
  const size = Math.abs(bits).toFixed(3);
  const sign = size === "0.000" ? "" : bits < 0 ? "−" : "+";
  length.style.setProperty("--length", sign ? Math.abs(bits) / largest : 0);
  cell.append(length, sign + size + (std === null ? "" : ` ± ${std.toFixed(3)}`));
  return cell;
}

/** Fills both tables for target i. */
function fillTables(trace, head, i) {
  const { counts, bandEdges } = trace;
  const visible = trace.numVisible[i];
  const weights = head.weights(i);
  const sorted = Float32Array.from(weights).sort().reverse();
  const total = (some) => percent(Math.min(1, sum(some)));
  const of = (array, column, columns) => array[i * columns + column];
  const byCount = counts.map((count, column) => [
    count < visible ? thousands(count) : `all ${thousands(visible)}`,
    total(sorted.subarray(0, count)),
    of(head.top, column, counts.length), of(head.random, column, counts.length),
    of(head.randomStd, column, counts.length)])
    .filter((_, column) => column === 0 || counts[column - 1] < visible);
  const bands = bandEdges.length - 1;
  const byDistance = bandEdges.slice(0, -1)
    .map((near, band) => [near, Math.min(visible, bandEdges[band + 1] - 1), band])
    .filter(([near]) => near <= visible)
    .map(([near, far, band]) => [
      near === far ? `${near}` : `${thousands(near)} to ${thousands(far)}`,
      total(weights.subarray(near - 1, far)), of(head.byBand, band, bands)]);
  const all = [...byCount.flatMap((line) => line.slice(2, 4)), ...byDistance.map((line) => line[2])];
  const largest = Math.max(0.01, ...all.map(Math.abs));
  const fill = (id, caption, names, lines) => {
    const header = make("tr");
    header.append(...names.map((name) =>
      make("th", name, { scope: "col", class: /bits|random/.test(name) ? "left" : "" })));
    $(id).replaceChildren(make("caption", caption), header, ...lines.map((line) => {
      const tr = make("tr");
      tr.append(...line);
      return tr;
    }));
  };
  fill("by-count", "Most attended positions",
    ["removed", "weight", "extra bits", "random positions"],
    byCount.map(([count, weight, top, random, std]) =>
      [make("td", count), make("td", weight), effectCell(top, largest),
        effectCell(random, largest, std)]));
  fill("by-distance", "All positions in a range", ["bytes back", "weight", "extra bits"],
    byDistance.map(([range, weight, bits]) =>
      [make("td", range), make("td", weight), effectCell(bits, largest)]));
}

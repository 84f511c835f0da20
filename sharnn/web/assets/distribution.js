// Sampling of a byte from a prediction, as in sharnn/inference/sampling.py.

/**
 * Returns the distribution that a byte is drawn from; see `sharnn.generate` for the settings, of
 * which 0 for top-k and 1 for top-p keep everything.
 *
 * @param cost  the bits of each symbol
 * @returns `symbols`, the likeliest first; `tempered`, their probabilities after temperature; `kept`,
 *          the number of symbols that are not cut; `mass`, their probability; `byK` and `byP`, the
 *          numbers of symbols that top-k and top-p keep
 */
function distribution(cost, { temperature, topK, topP }) {
  const symbols = Array.from(cost.keys()).sort((a, b) => cost[a] - cost[b]);
  // Bits are logits on another scale: p = 2^(-bits / temperature), and normalised.
  const weights = symbols.map((symbol, i) => temperature === 0
    ? Number(i === 0)
    : 2 ** ((cost[symbols[0]] - cost[symbol]) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const tempered = weights.map((weight) => weight / total);
  // Top-p keeps a symbol if the likelier ones sum to less than it.
  let before = 0;
  let byP = 0;
  while (topP < 1 && byP < symbols.length && (byP === 0 || before < topP)) before += tempered[byP++];
  if (topP >= 1) byP = symbols.length;
  const byK = Math.min(topK || symbols.length, symbols.length);
  const kept = temperature === 0 ? 1 : Math.min(byK, byP);
  const mass = tempered.slice(0, kept).reduce((sum, share) => sum + share, 0);
  return { symbols, tempered, kept, mass, byK, byP };
}

/** Returns the symbol of a distribution that a uniform number selects. */
function draw({ symbols, tempered, kept, mass }, number) {
  let point = number * mass;
  let i = 0;
  while (i < kept - 1 && point >= tempered[i]) point -= tempered[i++];
  return symbols[i];
}

/** Returns the entropy of probabilities, in bits. */
function entropy(probabilities) {
  return probabilities.reduce((sum, p) => sum - (p > 0 ? p * Math.log2(p) : 0), 0);
}

"use strict";

// The model, computed as the library does it: weights in float32, sums in float64. Nothing here touches the page.

const HALF_LOG_TWO_PI = 0.5 * Math.log(2 * Math.PI);

// Loading

const TYPES = { uint8: Uint8Array, float32: Float32Array };

// An array of the page's data, from the base64 of its bytes.
function unpack({ type, base64 }) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new TYPES[type](bytes.buffer);
}

// The page's data with every packed array in its place unpacked.
function unpackAll(value) {
  if (value === null || typeof value !== "object") return value;
  if (Array.isArray(value)) return value.map(unpackAll);
  if ("base64" in value) return unpack(value);
  return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, unpackAll(part)]));
}

// Networks

// input @ weight + bias, with the weight's rows one after the other.
function linear({ weight, bias }, input) {
  const units = bias.length;
  const output = Float64Array.from(bias);
  for (let i = 0; i < input.length; i++) {
    const x = input[i];
    if (x === 0) continue;
    const row = i * units;
    for (let j = 0; j < units; j++) output[j] += x * weight[row + j];
  }
  return output;
}

function features(layer, input) {
  return layer.hidden.reduce((value, hidden) => linear(hidden, value).map(Math.tanh), input);
}

// Distributions over a layer's units. `noise` is standard normal, densities are in nats, summed over units; a value that
// is missing (NaN) is not scored.

class Gaussian {
  constructor(mean, logSigma) {
    this.mean = mean;
    this.logSigma = logSigma;
  }

  sample(noise) {
    return this.mean.map((mean, i) => mean + Math.exp(this.logSigma[i]) * noise[i]);
  }

  logDensity(value) {
    let total = 0;
    for (let i = 0; i < value.length; i++) {
      if (Number.isNaN(value[i])) continue;
      const standardized = (value[i] - this.mean[i]) * Math.exp(-this.logSigma[i]);
      total -= 0.5 * standardized * standardized + this.logSigma[i] + HALF_LOG_TWO_PI;
    }
    return total;
  }
}

// Of values standardized by their spread; the density is that of the values in their own units. Sigma is at least 0.001.
class StandardizedGaussian extends Gaussian {
  constructor(outputs, spread) {
    const raw = outputs.subarray(spread.length);
    super(outputs.subarray(0, spread.length), raw.map((value) => logAddExp(value, Math.log(0.001))));
    this.spread = spread;
  }

  logDensity(value) {
    let total = super.logDensity(value);
    for (let i = 0; i < value.length; i++) if (!Number.isNaN(value[i])) total -= Math.log(this.spread[i]);
    return total;
  }
}

function logAddExp(a, b) {
  return Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
}

class Bernoulli {
  constructor(logits) {
    this.logits = Float64Array.from(logits);
  }

  get mean() {
    return this.logits.map((logit) => 1 / (1 + Math.exp(-logit)));
  }

  // A one where Phi(noise) is below the probability.
  sample(noise) {
    return this.mean.map((probability, i) => (normalCdf(noise[i]) < probability ? 1 : 0));
  }

  logDensity(value) {
    let total = 0;
    for (let i = 0; i < value.length; i++) {
      if (Number.isNaN(value[i])) continue;
      const logit = this.logits[i];
      total += value[i] * logit - Math.max(logit, 0) - Math.log1p(Math.exp(-Math.abs(logit)));
    }
    return total;
  }
}

// Phi, with a relative error below 1.2e-7 (Press et al., Numerical Recipes, erfcc).
function normalCdf(z) {
  const x = Math.abs(z) / Math.SQRT2;
  const t = 1 / (1 + 0.5 * x);
  const coefficients = [
    0.17087277, -0.82215223, 1.48851587, -1.13520398, 0.27886807, -0.18628806, 0.09678418, 0.37409196, 1.00002368,
    -1.26551223,
  ];
  const tail = 0.5 * t * Math.exp(-x * x + coefficients.reduce((sum, coefficient) => sum * t + coefficient));
  return z < 0 ? tail : 1 - tail;
}

// p(x | h_1) by the likelihood's name: `of` gives its mean and log density from the network's outputs, `original` takes
// a value as it is scored back to the units of the data.
const LIKELIHOODS = {
  bernoulli: { of: (outputs) => new Bernoulli(outputs), original: (layer, values) => values },
  gaussian: {
    of: (outputs, layer) => new StandardizedGaussian(outputs, layer.spread),
    original: (layer, values) => Float64Array.from(values, (value, i) => value * layer.spread[i] + layer.shift[i]),
  },
};

// The same for a latent layer, from its network's features.
const LATENTS = {
  gaussian: (layer, found) => new Gaussian(linear(layer.mean, found), linear(layer.log_sigma, found)),
  bernoulli: (layer, found) => new Bernoulli(linear(layer.logits, found)),
};

function conditional(layer, given) {
  const found = features(layer, given);
  if ("likelihood" in layer) return LIKELIHOODS[layer.likelihood].of(linear(layer.outputs, found), layer);
  return LATENTS[layer.kind](layer, found);
}

// p(h_L).
function prior(model) {
  if (model.prior.kind === "bernoulli") return new Bernoulli(model.prior.logits);
  const zeros = new Float64Array(model.latent.at(-1));
  return new Gaussian(zeros, zeros);
}

// The model

// A value of the visible layer, as it is scored, in the units of the data.
function original(model, values) {
  return LIKELIHOODS[model.decoder[0].likelihood].original(model.decoder[0], values);
}

// What the encoder sees of an example: zeros where values are missing.
function encoderInput(x) {
  return x.map((value) => (Number.isNaN(value) ? 0 : value));
}

// Means of the visible layer at values of the top layer, the layers between at their conditional means.
function decode(model, top) {
  return model.decoder.reduceRight((value, layer) => conditional(layer, value).mean, top);
}

// The mean of q(h_L | h_{L-1}), the layers below at their own means.
function posteriorMean(model, x) {
  return model.encoder.reduce((value, layer) => conditional(layer, value).mean, encoderInput(x));
}

// For each sample's noise (an array for each latent layer) log w = log p(x, h) - log q(h | x), and the decoded mean.
function importanceSamples(model, x, noise) {
  const first = conditional(model.encoder[0], encoderInput(x));
  return noise.map((layers) => {
    const latents = [];
    let logWeight = 0;
    model.encoder.forEach((layer, i) => {
      const posterior = i === 0 ? first : conditional(layer, latents[i - 1]);
      latents.push(posterior.sample(layers[i]));
      logWeight -= posterior.logDensity(latents[i]);
    });
    logWeight += prior(model).logDensity(latents.at(-1));
    for (let i = latents.length - 1; i > 0; i--) {
      logWeight += conditional(model.decoder[i], latents[i]).logDensity(latents[i - 1]);
    }
    const visible = conditional(model.decoder[0], latents[0]);
    return { logWeight: logWeight + visible.logDensity(x), mean: visible.mean };
  });
}

// With weights w_i of k samples: L_k = log (1/k) sum w, the effective sample size (sum w)^2 / sum w^2, and the average
// of the decoded means, weighted by w_i / sum w. Not finite where every weight is zero.
function weighted(samples) {
  const peak = Math.max(...samples.map((sample) => sample.logWeight));
  const reconstruction = new Float64Array(samples[0].mean.length);
  let total = 0;
  let squares = 0;
  for (const { logWeight, mean } of samples) {
    const weight = Math.exp(logWeight - peak);
    total += weight;
    squares += weight * weight;
    for (let i = 0; i < mean.length; i++) reconstruction[i] += weight * mean[i];
  }
  return {
    logLikelihood: peak + Math.log(total / samples.length),
    effectiveSampleSize: (total * total) / squares,
    reconstruction: reconstruction.map((value) => value / total),
  };
}

// Randomness

// A stream of standard normals, a function of two whole numbers: sfc32 (Doty-Humphrey) and Box and Muller's transform.
function normals(purpose, number) {
  let [a, b, c, counter] = [purpose, number, 0, 1];
  const uniform = () => {
    const result = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + result) | 0;
    return (result >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 20; i++) uniform();
  let spare = null;
  return () => {
    if (spare !== null) {
      const value = spare;
      spare = null;
      return value;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}

const PRIOR = 0;
const POSTERIOR = 1;

// A draw of the top layer from the prior, by its number.
function drawPrior(model, number) {
  const normal = normals(PRIOR, number);
  return prior(model).sample(Float64Array.from({ length: model.latent.at(-1) }, normal));
}

// Noise for k importance samples of the example with this index; fewer samples have the first of more.
function drawNoise(model, index, k) {
  const normal = normals(POSTERIOR, index);
  return Array.from({ length: k }, () => model.latent.map((length) => Float64Array.from({ length }, normal)));
}

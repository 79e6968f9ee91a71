"use strict";

const RANGE = 4;
const STEP = 0.05;
const BINARY_STEP = 0.01;
// Far outside of any posterior.
const MAX_VALUE = 1000;
const STRIP_HEIGHT = 48;
const BAR_COLOR = [63, 131, 216];
const byId = (id) => document.getElementById(id);

let about = null;
// The top layer's values where no slider moves them: the prior's mean.
let resting = null;
let rows = [];
let values = [];
let draws = 0;
let encoded = null;

function showError(message) {
  byId("error").hidden = message === null;
  byId("error").textContent = message === null ? "" : message;
}

// Pictures of values in the units of the data: an image has a pixel for each, from black to white. A vector that is no image is a strip of bars, a
// column for each value, on the page's own background, light or dark.

function draw(id, picture, label) {
  const canvas = byId(id);
  const [height, width] = about.image_shape === null ? [STRIP_HEIGHT, about.visible] : about.image_shape;
  Object.assign(canvas, { width, height });
  const paint = about.image_shape === null ? bar : grey;
  const [low, high] = about.range;
  const levels = Array.from(picture, (value) => between((value - low) / (high - low), 0, 1));
  const image = canvas.getContext("2d").createImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set(paint(levels, i), 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  if (label !== undefined) canvas.setAttribute("aria-label", label);
}

function grey(levels, i) {
  const level = Math.round(255 * levels[i]);
  return [level, level, level, 255];
}

// Opaque from the bottom up to the value, the last pixel by the fraction.
function bar(levels, i) {
  const below = STRIP_HEIGHT - 1 - Math.floor(i / about.visible);
  const height = levels[i % about.visible] * STRIP_HEIGHT;
  return [...BAR_COLOR, Math.round(255 * between(height - below, 0, 1))];
}

// Zero for what is no number.
function between(value, low, high) {
  return Math.min(Math.max(value, low), high) || 0;
}

// Sliders

function showDecoded() {
  const top = Float64Array.from(resting);
  about.units.forEach((unit, i) => {
    top[unit.index] = values[i];
  });
  draw("decoded", original(about, decode(about, top)));
}

// Moves the sliders to their units' part of values of the top layer.
function setSliders(top, status) {
  about.units.forEach((unit, i) => setValue(i, top[unit.index]));
  byId("status").textContent = status;
  showDecoded();
}

// The value is kept beside the slider, which rounds to its step and ends at its ends.
function setValue(i, value) {
  values[i] = between(value, -MAX_VALUE, MAX_VALUE);
  const { input, output } = rows[i];
  const reach = Math.max(RANGE, Math.ceil(Math.abs(values[i])));
  input.min = isBinary() ? 0 : -reach;
  input.max = isBinary() ? 1 : reach;
  input.value = values[i];
  output.textContent = shown(values[i]);
}

function isBinary() {
  return about.prior.kind === "bernoulli";
}

// With its sign, but for the probability of a binary unit.
function shown(value) {
  const text = Math.abs(value).toFixed(2);
  if (isBinary()) return text;
  return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
}

function addSlider(unit, i) {
  const row = document.createElement("div");
  row.className = "slider";
  const label = document.createElement("label");
  label.htmlFor = `unit-${unit.index}`;
  const variance = document.createElement("span");
  variance.className = "variance";
  variance.textContent = `variance ${unit.variance === null ? "unknown" : unit.variance.toPrecision(2)}`;
  label.append(`Unit ${unit.index} `, variance);
  const output = document.createElement("output");
  output.htmlFor = label.htmlFor;
  const input = document.createElement("input");
  Object.assign(input, { type: "range", id: label.htmlFor, step: isBinary() ? BINARY_STEP : STEP });
  // Not announced by itself: the slider speaks its own value.
  output.setAttribute("aria-live", "off");
  input.addEventListener("input", () => {
    values[i] = input.valueAsNumber;
    output.textContent = shown(values[i]);
    byId("status").textContent = "";
    showDecoded();
  });
  row.append(label, output, input);
  byId("sliders").append(row);
  rows.push({ input, output });
}

// Test examples

// One test example and what the model makes of it, with `k` importance samples.
function encodeExample(index, k) {
  const row = (array) => array.subarray(index * about.visible, (index + 1) * about.visible);
  const { scored, stored, scale } = about.examples;
  const x = row(scored);
  return {
    index,
    k,
    scored: x,
    stored: stored === null ? original(about, x) : Float64Array.from(row(stored), (value) => value * scale),
    posteriorMean: posteriorMean(about, x),
    ...weighted(importanceSamples(about, x, drawNoise(about, index, k))),
  };
}

function encode() {
  const index = wholeNumber("index", "Index");
  const k = index === null ? null : wholeNumber("k", "Samples k");
  if (k === null) return;
  encoded = encodeExample(index, k);
  const name = `test ${noun()} ${index}`;
  draw("stored", encoded.stored, `${name}, as stored`);
  draw("binarized", encoded.scored, `${name}, binarized`);
  draw("reconstruction", original(about, encoded.reconstruction), `Importance-weighted reconstruction of ${name}`);
  byId("figure-k").textContent = k;
  byId("log-likelihood").textContent = nats(encoded.logLikelihood);
  byId("ess").textContent = Number.isFinite(encoded.effectiveSampleSize)
    ? `${encoded.effectiveSampleSize.toFixed(1)} of ${k}`
    : "not finite";
  byId("recorded").textContent = nats(about.examples.log_likelihood[index] ?? NaN);
  byId("encoded-results").hidden = false;
  showError(null);
}

function nats(value) {
  return Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "not finite";
}

// The field's value, or null and a message where it is not what the page takes.
function wholeNumber(id, name) {
  const field = byId(id);
  const valid = field.checkValidity() && Number.isInteger(field.valueAsNumber);
  if (!valid) showError(`${name} must be a whole number from ${field.min} to ${field.max}.`);
  field.setAttribute("aria-invalid", String(!valid));
  return valid ? field.valueAsNumber : null;
}

function noun() {
  return about.image_shape === null ? "example" : "image";
}

// The page

function describe() {
  byId("title").textContent = about.title;
  for (const fact of about.facts) {
    const [row, name, text] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    name.textContent = fact.name;
    text.textContent = fact.text;
    row.append(name, text);
    byId("facts").append(row);
  }
  const count = about.examples.count;
  byId("units-note").textContent = unitsNote();
  if (isBinary()) byId("reset").textContent = "Reset to the prior's mean";
  document.body.classList.toggle("strip", about.image_shape === null);
  byId("strip-note").hidden = about.image_shape !== null;
  const [low, high] = about.range.map((value) => String(Number(value.toPrecision(3))).replace("-", "−"));
  byId("strip-note").textContent = `One bar for each value, from ${low} to ${high}.`;
  byId("binarized-figure").hidden = byId("binarized-note").hidden = about.examples.stored === null;
  byId("index").max = count - 1;
  byId("k").max = about.max_samples;
  byId("encode-panel").hidden = count === 0;
  byId("encode-heading").textContent = `A test ${noun()}`;
  byId("index-range").textContent = `(0–${count - 1})`;
  byId("k-range").textContent = `(1–${about.max_samples})`;
  byId("recorded-k").textContent = about.max_samples;
}

function unitsNote() {
  const shown = about.units.length;
  const units = about.latent.at(-1);
  const order = "the largest variance of the posterior mean first";
  const parts = [
    about.num_active > 0
      ? `Active units: ${about.num_active} of ${units}, ${order}.`
      : `None of the ${units} units is active (a variance of the posterior mean above 0.01): all, ${order}.`,
  ];
  if (shown < Math.max(about.num_active, 1)) parts.push(`Only the first ${shown} have sliders.`);
  if (shown < units) parts.push(`The others stay at ${isBinary() ? "the prior's mean" : "zero"}.`);
  if (isBinary()) parts.push("Each is 0 or 1; between the two lies its probability.");
  const layers = about.latent.length;
  if (layers > 1) {
    parts.push(`They are those of layer ${layers}, the top one; the layers below are at their conditional means.`);
  }
  return parts.join(" ");
}

function connect() {
  byId("reset").addEventListener("click", () => {
    setSliders(resting, `All sliders at ${isBinary() ? "the prior's mean" : "zero"}.`);
  });
  byId("prior").addEventListener("click", () => {
    setSliders(drawPrior(about, draws), `Draw ${++draws} from the prior.`);
  });
  byId("encode-form").addEventListener("submit", (event) => {
    event.preventDefault();
    encode();
  });
  byId("random").addEventListener("click", () => {
    byId("index").value = Math.floor(Math.random() * about.examples.count);
    encode();
  });
  byId("to-posterior").addEventListener("click", () => {
    setSliders(encoded.posteriorMean, `The posterior mean of test ${noun()} ${encoded.index}.`);
  });
}

function start() {
  about = unpackAll(JSON.parse(byId("data").textContent));
  resting = prior(about).mean;
  describe();
  about.units.forEach(addSlider);
  connect();
  setSliders(resting, "");
}

try {
  start();
} catch (error) {
  showError(`This page is damaged (${error.message}). Write it again with iwae explore.`);
}

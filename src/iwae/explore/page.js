"use strict";

const RANGE = 4;
const STEP = 0.05;
const BINARY_STEP = 0.01;
const byId = (id) => document.getElementById(id);

let about = null;
let rows = [];
let values = [];
let posterior = null;

// Requests

async function ask(path, fields) {
  const options = fields === undefined
    ? {}
    : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(fields) };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The model does not answer. Is `iwae explore` still running?");
  }
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    // The answer is judged by its status.
  }
  if (!response.ok || answer === null) {
    throw new Error((answer && answer.error) || `The model answered with status ${response.status}.`);
  }
  return answer;
}

// While a request is under way, only the latest of those that follow is kept: a slider that moves faster than the
// model computes never builds a queue.
function latest(path, show) {
  let waiting = null;
  let busy = false;
  return async (fields) => {
    waiting = fields;
    if (busy) return;
    busy = true;
    while (waiting !== null) {
      const sent = waiting;
      waiting = null;
      try {
        const answer = await ask(path, sent);
        showError(null);
        show(answer);
      } catch (error) {
        showError(error.message);
      }
    }
    busy = false;
  };
}

function showError(message) {
  byId("error").hidden = message === null;
  byId("error").textContent = message === null ? "" : message.charAt(0).toUpperCase() + message.slice(1);
}

// Sliders

const requestDecode = latest("api/decode", (answer) => {
  byId("decoded").src = answer.image;
});

const requestPrior = latest("api/prior", (answer) => {
  setSliders(answer.values);
  byId("status").textContent = "A draw from the prior.";
});

function setSliders(newValues) {
  newValues.forEach((value, i) => setValue(i, value));
  requestDecode({ values });
}

// The value is kept beside the slider, which rounds to its step and ends at its ends.
function setValue(i, value) {
  values[i] = value;
  const { input, output } = rows[i];
  const reach = Math.max(RANGE, Math.ceil(Math.abs(value)));
  input.min = about.binary_units ? 0 : -reach;
  input.max = about.binary_units ? 1 : reach;
  input.value = value;
  output.textContent = shown(value);
}

// With its sign, but for the probability of a binary unit.
function shown(value) {
  const text = Math.abs(value).toFixed(2);
  if (about.binary_units) return text;
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
  Object.assign(input, { type: "range", id: label.htmlFor, step: about.binary_units ? BINARY_STEP : STEP });
  // Not announced by itself: the slider speaks its own value.
  output.setAttribute("aria-live", "off");
  input.addEventListener("input", () => {
    values[i] = input.valueAsNumber;
    output.textContent = shown(values[i]);
    byId("status").textContent = "";
    requestDecode({ values });
  });
  row.append(label, output, input);
  byId("sliders").append(row);
  rows.push({ input, output });
  setValue(i, unit.resting);
}

// Test images

const requestEncode = latest("api/encode", (answer) => {
  posterior = answer;
  const name = `test ${noun()} ${answer.index}`;
  const show = (id, source, alt) => Object.assign(byId(id), { src: source, alt });
  show("original", answer.original, `${name}, as stored`);
  byId("binarized-figure").hidden = byId("binarized-note").hidden = answer.encoded === null;
  if (answer.encoded !== null) show("binarized", answer.encoded, `${name}, binarized`);
  show("reconstruction", answer.reconstruction, `Importance-weighted reconstruction of ${name}`);
  byId("figure-k").textContent = answer.k;
  byId("log-likelihood").textContent = answer.log_likelihood === null
    ? "not finite"
    : answer.log_likelihood.toFixed(2).replace("-", "−");
  byId("ess").textContent = answer.effective_sample_size === null
    ? "not finite"
    : `${answer.effective_sample_size.toFixed(1)} of ${answer.k}`;
  byId("encoded-results").hidden = false;
});

function encode() {
  const index = wholeNumber("index", "Index");
  const k = index === null ? null : wholeNumber("k", "Samples k");
  if (k !== null) requestEncode({ index, k });
}

// The field's value, or null and a message where it is not what the model takes.
function wholeNumber(id, name) {
  const field = byId(id);
  const valid = field.checkValidity() && Number.isInteger(field.valueAsNumber);
  if (!valid) showError(`${name} must be a whole number from ${field.min} to ${field.max}.`);
  field.setAttribute("aria-invalid", String(!valid));
  return valid ? field.valueAsNumber : null;
}

// The page

function describe() {
  document.title = `${about.title} – iwae explore`;
  byId("title").textContent = about.title;
  for (const fact of about.facts) {
    const [row, name, text] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
    name.textContent = fact.name;
    text.textContent = fact.text;
    row.append(name, text);
    byId("facts").append(row);
  }
  byId("units-note").textContent = unitsNote();
  if (about.binary_units) byId("reset").textContent = "Reset to the prior's mean";
  document.body.classList.toggle("strip", about.image_shape === null);
  byId("strip-note").hidden = about.image_shape !== null;
  byId("index").max = about.num_examples - 1;
  byId("k").max = about.max_samples;
  byId("k").value = Math.min(50, about.max_samples);
  byId("encode-panel").hidden = about.num_examples === 0;
  byId("encode-heading").textContent = `A test ${noun()}`;
  byId("index-range").textContent = `(0–${about.num_examples - 1})`;
  byId("k-range").textContent = `(1–${about.max_samples})`;
}

function noun() {
  return about.image_shape === null ? "example" : "image";
}

function unitsNote() {
  const shown = about.units.length;
  const order = "the largest variance of the posterior mean first";
  const parts = [
    about.num_active > 0
      ? `Active units: ${about.num_active} of ${about.latent}, ${order}.`
      : `None of the ${about.latent} units is active (a variance of the posterior mean above 0.01): all, ${order}.`,
  ];
  if (shown < Math.max(about.num_active, 1)) parts.push(`Only the first ${shown} have sliders.`);
  if (shown < about.latent) parts.push(`The others stay at ${about.binary_units ? "the prior's mean" : "zero"}.`);
  if (about.binary_units) parts.push("Each is 0 or 1; between the two lies its probability.");
  if (about.layers > 1) {
    parts.push(`They are those of layer ${about.layers}, the top one; the layers below are at their conditional means.`);
  }
  return parts.join(" ");
}

function connect() {
  byId("reset").addEventListener("click", () => {
    setSliders(about.units.map((unit) => unit.resting));
    byId("status").textContent = about.binary_units ? "All sliders at the prior's mean." : "All sliders at zero.";
  });
  byId("prior").addEventListener("click", () => requestPrior({ draw: Math.floor(Math.random() * 2 ** 31) }));
  byId("encode-form").addEventListener("submit", (event) => {
    event.preventDefault();
    encode();
  });
  byId("random").addEventListener("click", () => {
    byId("index").value = Math.floor(Math.random() * about.num_examples);
    encode();
  });
  byId("to-posterior").addEventListener("click", () => {
    setSliders(posterior.values);
    byId("status").textContent = `The posterior mean of test ${noun()} ${posterior.index}.`;
  });
}

async function start() {
  try {
    about = await ask("api/model");
  } catch (error) {
    showError(error.message);
    return;
  }
  describe();
  about.units.forEach(addSlider);
  connect();
  requestDecode({ values });
}

start();

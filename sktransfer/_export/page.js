
// Photos are decoded by the browser, prepared as Pillow would do it, and classified by ONNX Runtime in WebAssembly.

const description = JSON.parse(document.getElementById("description").textContent);
const SHOWN = 5; // classes of each photo

// --- Resizing, equal to Pillow's to the bit ---------------------------------------------------------------------

const BITS = 22; // of the fraction of a coefficient
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const FILTERS = { // support and function of each
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
  }],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** The first source pixel and the integer coefficients of each pixel of the window first … first + count - 1. */
function coefficients(inSize, outSize, first, count, interpolation) {
  if (inSize === outSize) return null; // Pillow leaves this pass out
  const [radius, filter] = FILTERS[interpolation];
  const scale = inSize / outSize, stretch = Math.max(scale, 1), support = radius * stretch, inverse = 1 / stretch;
  return Array.from({ length: count }, (_, i) => {
    const center = (first + i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - support + 0.5));
    const end = Math.min(inSize, Math.trunc(center + support + 0.5));
    const weights = Array.from({ length: end - start }, (_, x) => filter((x + start - center + 0.5) * inverse));
    const sum = weights.reduce((a, b) => a + b, 0);
    const parts = weights.map((w) => (sum === 0 ? w : w / sum) * (1 << BITS));
    return { start, weights: Int32Array.from(parts, (w) => Math.trunc(w < 0 ? w - 0.5 : w + 0.5)) };
  });
}

const clipped = (sum) => (sum < 0 ? 0 : sum >= 1 << (BITS + 8) ? 255 : sum >> BITS);

/** Resample one axis of an RGB image. Lines run along the other axis, and `step` leads from pixel to pixel. */
function resample(source, target, positions, lines, lineIn, stepIn, lineOut, stepOut) {
  positions.forEach(({ start, weights }, i) => {
    for (let line = 0; line < lines; line++) {
      let r = 1 << (BITS - 1), g = r, b = r;
      let from = line * lineIn + start * stepIn;
      for (let k = 0; k < weights.length; k++, from += stepIn) {
        const w = weights[k];
        r += source[from] * w; g += source[from + 1] * w; b += source[from + 2] * w;
      }
      const to = line * lineOut + i * stepOut;
      target[to] = clipped(r); target[to + 1] = clipped(g); target[to + 2] = clipped(b);
    }
  });
}

/** Resize an RGB image {data, width, height} to width × height and return the window {left, top, width, height}. */
function resized(image, width, height, window, interpolation) {
  if (interpolation === "nearest") return nearest(image, width, height, window);
  const across = coefficients(image.width, width, window.left, window.width, interpolation);
  const down = coefficients(image.height, height, window.top, window.height, interpolation);
  const loss = [image.width - width, image.height - height];
  const acrossFirst = !(loss[1] > 0 && loss[1] > 2 * loss[0]);
  const passes = acrossFirst ? [horizontally, vertically] : [vertically, horizontally];
  return passes.reduce((current, pass) => pass(current), image);

  function horizontally(image) {
    if (!across) return cropped(image, window.left, 0, window.width, image.height);
    const data = new Uint8Array(window.width * image.height * 3);
    resample(image.data, data, across, image.height, image.width * 3, 3, window.width * 3, 3);
    return { data, width: window.width, height: image.height };
  }
  function vertically(image) {
    if (!down) return cropped(image, 0, window.top, image.width, window.height);
    const data = new Uint8Array(image.width * window.height * 3);
    resample(image.data, data, down, image.width, 3, image.width * 3, 3, image.width * 3);
    return { data, width: image.width, height: window.height };
  }
}

function cropped(image, left, top, width, height) {
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data, width, height };
}

function nearest(image, width, height, window) {
  const rows = sources(image.height, height).slice(window.top), columns = sources(image.width, width).slice(window.left);
  const data = new Uint8Array(window.width * window.height * 3);
  for (let y = 0, to = 0; y < window.height; y++) {
    for (let x = 0; x < window.width; x++, to += 3) {
      const from = (rows[y] * image.width + columns[x]) * 3;
      data.set(image.data.subarray(from, from + 3), to);
    }
  }
  return { data, width: window.width, height: window.height };
}

/** The source of each pixel, by sums as in Pillow, since a product would round differently. */
function sources(inSize, outSize) {
  const step = inSize / outSize;
  let at = step / 2;
  return Array.from({ length: outSize }, () => {
    const source = Math.floor(at);
    at += step;
    return source;
  });
}

/** Half of a number, rounded to the even neighbour as Python does. */
function half(n) {
  return n % 2 === 0 ? n / 2 : 2 * Math.round((n / 2) / 2);
}

/** Resize and crop an RGB image as the metadata of the model say. */
function prepared(image, how) {
  const [targetHeight, targetWidth] = how.resize, [cropHeight, cropWidth] = how.crop;
  let width = targetWidth, height = targetHeight;
  if (how.resize_mode === "cover") {
    const ratio = Math.min(image.height / targetHeight, image.width / targetWidth);
    height = evenly(image.height / ratio); width = evenly(image.width / ratio);
  } else if (how.resize_mode === "shorter side") {
    if (image.height <= image.width) width = Math.trunc((targetHeight * image.width) / image.height);
    else height = Math.trunc((targetWidth * image.height) / image.width);
  }
  if (how.resize_mode === "fit") return padded(image, how);
  const window = { top: half(height - cropHeight), left: half(width - cropWidth), width: cropWidth, height: cropHeight };
  return resized(image, width, height, window, how.interpolation).data;
}

/** Resize an RGB image so that it fits, and put it into the middle of an area of one colour. */
function padded(image, how) {
  const [areaHeight, areaWidth] = how.crop;
  let width = areaWidth, height = areaHeight;
  if (image.width * areaHeight > image.height * areaWidth) {
    height = Math.max(1, evenly((image.height / image.width) * areaWidth));
  } else width = Math.max(1, evenly((image.width / image.height) * areaHeight));
  const small = resized(image, width, height, { top: 0, left: 0, width, height }, how.interpolation).data;
  const area = new Uint8Array(areaHeight * areaWidth * 3);
  for (let i = 0; i < area.length; i++) area[i] = how.fill[i % 3];
  const top = half(areaHeight - height), left = half(areaWidth - width);
  for (let y = 0; y < height; y++) {
    area.set(small.subarray(y * width * 3, (y + 1) * width * 3), ((top + y) * areaWidth + left) * 3);
  }
  return area;
}

/** Round to the nearest integer, and a half to the even one. */
function evenly(x) {
  const below = Math.floor(x), rest = x - below;
  return rest < 0.5 || (rest === 0.5 && below % 2 === 0) ? below : below + 1;
}

// --- Reading photos ---------------------------------------------------------------------------------------------

/** Decode a file to an upright RGB image on white. Colour profiles are ignored. */
async function decoded(file) {
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  const bitmap = await createImageBitmap(file, options);
  const canvas = document.createElement("canvas");
  const { width, height } = Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const rgba = context.getImageData(0, 0, width, height).data;
  const data = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = rgba[from]; data[to + 1] = rgba[from + 1]; data[to + 2] = rgba[from + 2];
  }
  return { data, width, height };
}

// --- The model --------------------------------------------------------------------------------------------------

/** Unpack what is stored in the page as base64 of gzip. */
async function stored(id) {
  const element = document.getElementById(id);
  const text = atob(element.textContent);
  element.textContent = "";
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const { env, InferenceSession } = globalThis.ort;
  env.wasm.numThreads = 1;
  env.wasm.proxy = false;
  env.wasm.wasmBinary = (await stored("wasm")).buffer;
  return InferenceSession.create(await stored("model"), { executionProviders: ["wasm"] });
}

/** Classify an RGB image: the label, and the probability or score of each class. */
async function classified(image) {
  const inputs = {};
  for (const { name, preprocessing } of description.inputs) {
    const shape = [1, ...preprocessing.crop, 3];
    inputs[name] = new globalThis.ort.Tensor("uint8", prepared(image, preprocessing), shape);
  }
  const outputs = await (await session).run(inputs);
  return { label: String(outputs.label.data[0]), values: Array.from(outputs[description.values].data) };
}

// --- The page ---------------------------------------------------------------------------------------------------

const results = document.getElementById("results"), input = document.getElementById("files");
const history = []; // what was answered, for programs that drive this page

function say(text) {
  document.getElementById("status").textContent = text;
}

function made(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function listed({ label, values }) {
  const order = values.map((_, i) => i).sort((a, b) => values[b] - values[a]).slice(0, SHOWN);
  const probable = description.values === "probabilities";
  return made("ul", { className: "classes" }, ...order.map((i) => {
    const value = probable ? `${(100 * values[i]).toFixed(1)} %` : values[i].toFixed(2);
    const row = made("li", {}, made("span", { textContent: String(description.classes[i]) }), made("span", { className: "value", textContent: value }));
    if (probable) {
      const fill = made("i");
      fill.style.width = `${100 * values[i]}%`;
      row.append(made("div", { className: "bar", ariaHidden: "true" }, fill));
    }
    return row;
  }));
}

async function answered(file) {
  const text = made("div", { className: "text" }), item = made("li", { className: "result" }, text);
  let image;
  try {
    image = await decoded(file);
  } catch {
    const fault = `${file.name} is not an image that this browser can read.`;
    text.append(made("p", { className: "fault", textContent: fault }));
    return { item, answer: { name: file.name, error: fault } };
  }
  const answer = await classified(image);
  item.prepend(made("img", { src: URL.createObjectURL(file), alt: `Photo ${file.name}` }));
  text.append(made("h2", { textContent: answer.label }), made("p", { className: "name", textContent: file.name }), listed(answer));
  return { item, answer: { name: file.name, ...answer } };
}

let queue = Promise.resolve();

function classifyAll(files) {
  queue = queue.then(async () => {
    let done = 0, faults = 0;
    for (const file of files) {
      say(`Classifying ${++done} of ${files.length} …`);
      await new Promise((go) => setTimeout(go)); // let the browser draw
      try {
        const { item, answer } = await answered(file);
        results.prepend(item);
        history.push(answer);
        if (answer.error) { faults++; } else { last = `${answer.name}: ${answer.label}.`; }
      } catch (error) {
        faults++;
        history.push({ name: file.name, error: String(error) });
        results.prepend(made("li", { className: "result" }, made("div", { className: "text" }, made("p", { className: "fault", textContent: `${file.name} could not be classified: ${error}` }))));
      }
    }
    const classes = done - faults;
    say(`${classes === 1 ? last : `${classes} photos classified.`}${faults ? ` ${faults} ${faults === 1 ? "file" : "files"} could not be read.` : ""}`);
  });
  return queue;
}

let last = "";
const session = load();
session.then(
  () => { input.disabled = false; say("Ready."); },
  (error) => say(`The model cannot be loaded in this browser: ${error}. A current version of Chrome, Edge, Firefox or Safari is needed.`),
);

input.addEventListener("change", () => { classifyAll([...input.files]); input.value = ""; });
for (const [event, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  document.addEventListener(event, (happened) => {
    happened.preventDefault();
    document.body.classList.toggle("over", over);
    if (event === "drop" && !input.disabled) classifyAll([...happened.dataTransfer.files]);
  });
}
globalThis.sktransfer = { description, session, prepared, decoded, classified, classifyAll, history };

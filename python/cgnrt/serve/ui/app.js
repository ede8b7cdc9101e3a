// The page: controls to state, state to address and requests, answers to pictures.

import { ROWS, draw, save, sheet } from "./pictures.js";
import { Picker } from "./picker.js";
import { Server, ServerError } from "./protocol.js";
import { Source } from "./source.js";
import { MECHANISMS, dice, format, parse } from "./state.js";

const ALL_AT_ONCE = 24; // classes that a row of variants shows without pages
const PAGE = 12; // classes on a page of more
const TOGETHER = 4; // requests that are under way at a time
const FRAME_MS = 120;

const $ = (id) => document.getElementById(id);
const server = new Server("../");
const pickers = {};
const endPickers = {};

let facts; // of the model
let source;
let state;
let shown = null; // the pictures in the viewer
let series = []; // {label, pictures} of the sheet
let running = null; // AbortController of the requests under way
let player = null;

/** Ask the server what it has, and show the page. */
async function start() {
  clearProblem();
  try {
    facts = await server.model();
  } catch (error) {
    report(error, start);
    return;
  }
  source = new Source(server, facts.range);
  const [height, width] = facts.resolution;
  document.title = `${facts.name} \u2013 cgnrt`;
  $("model").textContent = facts.name;
  $("facts").textContent = `${width} \u00d7 ${height} px, ${facts.engine.precision} by ${facts.engine.backend}`;
  for (const row of ROWS) Object.assign($(`picture-${row}`), { width, height });
  for (const name of MECHANISMS) {
    const title = name[0].toUpperCase() + name.slice(1);
    const change = (index) => update({ [name]: index });
    pickers[name] = new Picker($("pickers"), name, title, facts.classes[name], change);
    const changeEnd = (index) => update({ end: { ...state.end, [name]: index } });
    endPickers[name] = new Picker($("end-pickers"), `end-${name}`, `${title} at the end`, facts.classes[name], changeEnd);
  }
  for (const name of Object.keys(facts.follows)) {
    const radio = document.querySelector(`input[name=free][value=${name}]`);
    for (const field of [pickers[name].input, endPickers[name].input]) field.closest(".picker").hidden = true;
    radio.closest("label").hidden = true;
  }
  if (facts.truncation !== null) {
    $("truncation-field").hidden = false;
    $("truncation").min = facts.truncation.minimum;
    $("truncation").max = facts.truncation.maximum;
  }
  $("page").hidden = false;
  listen();
  state = followed(parse(location.hash, facts.classes));
  refresh();
}

/** A state in which mechanisms that follow another one have its class. */
function followed(given) {
  const found = { ...given, end: { ...given.end } };
  for (const [name, leader] of Object.entries(facts.follows)) {
    for (const part of [found, found.end]) part[name] = part[leader];
    if (found.free === name) found.free = leader;
  }
  return found;
}

function listen() {
  const onChange = (id, change) => $(id).addEventListener("change", () => update(change($(id).value)));
  const onClick = (id, change) => $(id).addEventListener("click", () => update(change()));
  onChange("sample", (sample) => ({ sample }));
  onChange("seed", (seed) => ({ seed }));
  onChange("frames", (frames) => ({ frames, at: 0 }));
  onChange("end-sample", (sample) => ({ end: { ...state.end, sample } }));
  $("truncation").addEventListener("input", () => update({ truncation: $("truncation").value }));
  onClick("dice", () => ({ sample: dice() }));
  onClick("end-dice", () => ({ end: { ...state.end, sample: dice() } }));
  onClick("draw", () => ({ ...drawn(), sample: dice(), page: 0 }));
  onClick("swap", () => {
    const { end, ...here } = state;
    const ends = (from) => Object.fromEntries([...MECHANISMS, "sample"].map((field) => [field, from[field]]));
    return { ...ends(end), end: ends(here), at: Math.max(0, series.length - 1 - state.at) };
  });
  onClick("page-back", () => ({ page: state.page - 1 }));
  onClick("page-on", () => ({ page: state.page + 1 }));
  for (const radio of document.getElementsByName("free")) {
    radio.addEventListener("change", () => update({ free: radio.value, page: pageOf(radio.value) }));
  }
  for (const view of ["vary", "path"]) {
    onClick(`tab-${view}`, () => ({ view }));
    $(`tab-${view}`).addEventListener("keydown", (event) => {
      if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return;
      const other = view === "vary" ? "path" : "vary";
      update({ view: other });
      $(`tab-${other}`).focus();
    });
  }
  $("at").addEventListener("input", () => showFrame(Number($("at").value)));
  $("play").addEventListener("click", () => (player === null ? play() : pause()));
  $("save-image").addEventListener("click", () => saved(saveImage));
  $("save-sheet").addEventListener("click", () => saved(saveSheet));
  window.addEventListener("hashchange", () => {
    if (location.hash === format(state)) return;
    state = followed(parse(location.hash, facts.classes));
    refresh();
  });
}

function drawn() {
  const pick = (name) => String(crypto.getRandomValues(new Uint32Array(1))[0] % facts.classes[name].length);
  return Object.fromEntries(MECHANISMS.map((name) => [name, pick(name)]));
}

function update(change) {
  state = followed({ ...state, ...change });
  refresh();
}

/** Controls, address and pictures of the state. What was under way for an older one is given up. */
async function refresh() {
  running?.abort();
  const mine = (running = new AbortController());
  pause();
  syncControls();
  history.replaceState(null, "", format(state));
  clearProblem();
  busy(true);
  const began = performance.now();
  try {
    if (state.view === "vary") await showVariants(mine.signal);
    else await showPath(mine.signal);
    if (mine !== running) return;
    const what = series.length === 1 ? "1 image" : `${series.length} images`;
    $("status").textContent = `${what} in ${Math.round(performance.now() - began)} ms`;
  } catch (error) {
    if (mine !== running) return;
    mine.abort(); // the rest of what this state asked
    shown = null; // older pictures would be saved under this state's name
    series = [];
    report(error, refresh);
  }
  busy(false);
}

function syncControls() {
  for (const name of MECHANISMS) {
    pickers[name].value = state[name];
    endPickers[name].value = state.end[name];
  }
  set($("sample"), state.sample);
  set($("seed"), state.seed);
  set($("end-sample"), state.end.sample);
  set($("frames"), state.frames);
  const truncation = state.truncation ?? facts.truncation?.default;
  if (truncation !== undefined) {
    set($("truncation"), String(truncation));
    $("truncation-value").textContent = Number(truncation).toFixed(2);
  }
  for (const radio of document.getElementsByName("free")) radio.checked = radio.value === state.free;
  for (const view of ["vary", "path"]) {
    const selected = view === state.view;
    $(view).hidden = !selected;
    $(`tab-${view}`).setAttribute("aria-selected", String(selected));
    $(`tab-${view}`).tabIndex = selected ? 0 : -1;
  }
}

/** Set a field, but not under the fingers of whoever types in it. */
function set(input, value) {
  if (input.value !== value) input.value = value;
}

// Vary one.

function pages() {
  const classes = facts.classes[state.free].length;
  return classes <= ALL_AT_ONCE ? 1 : Math.ceil(classes / PAGE);
}

/** The page of variants that has the class of now. */
function pageOf(mechanism) {
  const many = facts.classes[mechanism].length > ALL_AT_ONCE;
  return many ? Math.max(0, Math.floor(Number(state[mechanism]) / PAGE) || 0) : 0;
}

async function showVariants(signal) {
  const names = facts.classes[state.free];
  const page = Math.min(Math.max(0, state.page), pages() - 1);
  const first = page * PAGE;
  const last = pages() === 1 ? names.length : Math.min(names.length, first + PAGE);
  $("pager").hidden = pages() === 1;
  $("page-text").textContent = `${first}\u2013${last - 1} of ${names.length}`;
  $("page-back").disabled = page === 0;
  $("page-on").disabled = page === pages() - 1;
  const columns = [];
  for (let index = first; index < last; index++) columns.push({ label: names[index], index: String(index) });
  series = columns;
  tiles($("variants"), columns, ({ index }) => index === state[state.free], ({ index }) => ({ [state.free]: index }));

  show(await source.one(state, signal));
  await each(columns, async (column, place) => {
    column.pictures = await source.one(followed({ ...state, [state.free]: column.index }), signal);
    if (!signal.aborted) draw($("variants").children[place].firstChild, column.pictures.composite);
  });
}

/** Do `work` for all items, a few at a time. */
async function each(items, work) {
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const place = next++;
      await work(items[place], place);
    }
  };
  await Promise.all(Array.from({ length: TOGETHER }, lane));
}

// Interpolate.

async function showPath(signal) {
  const frames = await source.path(state, signal);
  if (signal.aborted) return;
  series = frames.map((pictures, k) => ({ label: `${k + 1}`, pictures }));
  tiles($("steps"), series, (_, place) => place === state.at, null, showFrame);
  series.forEach(({ pictures }, place) => draw($("steps").children[place].firstChild, pictures.composite));
  $("at").max = series.length - 1;
  showFrame(Math.min(state.at, series.length - 1));
}

function showFrame(at) {
  state.at = at;
  if (!series[at]?.pictures) return;
  show(series[at].pictures);
  $("at").value = at;
  $("at-text").textContent = `${at + 1} of ${series.length}`;
  Array.from($("steps").children).forEach((tile, place) => mark(tile, place === at));
  if (player === null) history.replaceState(null, "", format(state));
}

function play() {
  let step = 1;
  $("play").textContent = "Pause";
  $("play").setAttribute("aria-pressed", "true");
  player = setInterval(() => {
    if (state.at + step < 0 || state.at + step >= series.length) step = -step;
    showFrame(state.at + step);
  }, FRAME_MS);
}

function pause() {
  if (player === null) return;
  clearInterval(player);
  player = null;
  $("play").textContent = "Play";
  $("play").setAttribute("aria-pressed", "false");
  history.replaceState(null, "", format(state));
}

// Pictures.

function show(pictures) {
  shown = pictures;
  for (const row of ROWS) draw($(`picture-${row}`), pictures[row]);
}

/** A row of buttons with a picture and a caption each, which are kept where their number is the same. */
function tiles(parent, columns, current, change, act) {
  const focused = Array.from(parent.children).indexOf(document.activeElement);
  const found = columns.map((column, place) => {
    const tile = document.createElement("button");
    tile.type = "button";
    const canvas = document.createElement("canvas");
    const [height, width] = facts.resolution;
    canvas.width = width;
    canvas.height = height;
    canvas.setAttribute("aria-hidden", "true");
    const caption = document.createElement("span");
    caption.textContent = column.label;
    tile.append(canvas, caption);
    mark(tile, current(column, place));
    tile.addEventListener("click", () => (act ? act(place) : update(change(column))));
    return tile;
  });
  parent.replaceChildren(...found);
  found[focused]?.focus();
}

function mark(tile, current) {
  if (current) tile.setAttribute("aria-current", "true");
  else tile.removeAttribute("aria-current");
}

async function saved(work) {
  try {
    await work();
  } catch (error) {
    report(error, null);
  }
}

function fileName(kind) {
  const classes = MECHANISMS.map((name) => state[name]).join("-");
  return `${facts.name}-${kind}-${classes}-sample-${state.sample}.png`.replace(/[^\w.-]+/g, "_");
}

async function saveImage() {
  const canvas = document.createElement("canvas");
  draw(canvas, shown.composite);
  await save(canvas, fileName("image"));
}

async function saveSheet() {
  await save(sheet(series), fileName(state.view === "vary" ? state.free : "path"));
}

// Problems.

function busy(yes) {
  document.body.classList.toggle("busy", yes);
  $("viewer").setAttribute("aria-busy", String(yes));
  $("save-image").disabled = yes || shown === null;
  $("save-sheet").disabled = yes || !series.length;
  if (yes) $("status").textContent = "Working\u2026";
}

function report(error, again) {
  if (error.name === "AbortError") return;
  if (!(error instanceof ServerError)) console.error(error);
  const unknown = error instanceof ServerError && error.status === 401;
  $("message").textContent = error.message;
  $("token-form").hidden = !unknown;
  $("retry").hidden = unknown || again === null;
  $("retry").onclick = again;
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    server.token = $("token").value;
    $("token").value = "";
    again();
  };
  $("problem").hidden = false;
  document.body.classList.add("failed");
  $("status").textContent = "";
  if (unknown) $("token").focus();
}

function clearProblem() {
  $("problem").hidden = true;
  document.body.classList.remove("failed");
}

start();

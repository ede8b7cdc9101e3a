// What the page shows, as the part of its address behind the '#': a link brings it back.

export const MECHANISMS = ["shape", "texture", "background"];

/** Where a visit without a link starts: an image that is counterfactual. */
export function initial(classes) {
  const some = (shift) =>
    Object.fromEntries(MECHANISMS.map((name, k) => [name, String((shift + k) % classes[name].length)]));
  return {
    ...some(3),
    sample: "0",
    seed: "0",
    truncation: null,
    view: "vary",
    free: "texture",
    page: 0,
    end: { ...some(5), sample: "1" },
    frames: "8",
    at: 0,
  };
}

/** The state that a link means; what it leaves out is as usual, what it has is for the server to judge. */
export function parse(hash, classes) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const state = initial(classes);
  const read = (key, into, field) => {
    if (given.has(key)) into[field] = given.get(key);
  };
  for (const name of MECHANISMS) {
    for (const [key, into] of [[name, state], [`end-${name}`, state.end]]) {
      read(key, into, name);
      const index = classes[name].indexOf(into[name]);
      if (!isWhole(into[name]) && index >= 0) into[name] = String(index); // a link may have a name
    }
  }
  for (const field of ["sample", "seed", "truncation", "frames"]) read(field, state, field);
  read("end-sample", state.end, "sample");
  if (given.get("view") === "path") state.view = "path";
  if (MECHANISMS.includes(given.get("free"))) state.free = given.get("free");
  for (const field of ["page", "at"]) {
    if (/^\d{1,6}$/.test(given.get(field) ?? "")) state[field] = Number(given.get(field));
  }
  return state;
}

/** The link to a state, without what the view does not show. */
export function format(state) {
  const found = new URLSearchParams();
  for (const field of [...MECHANISMS, "sample", "seed"]) found.set(field, state[field]);
  if (state.truncation !== null) found.set("truncation", state.truncation);
  found.set("view", state.view);
  if (state.view === "vary") {
    found.set("free", state.free);
    if (state.page) found.set("page", state.page);
  } else {
    for (const field of [...MECHANISMS, "sample"]) found.set(`end-${field}`, state.end[field]);
    found.set("frames", state.frames);
    found.set("at", state.at);
  }
  return `#${found}`;
}

/** Whether a text is a whole number, of any size. */
export function isWhole(text) {
  return /^-?\d{1,20}$/.test(text);
}

/** A sample number at random. */
export function dice() {
  return String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);
}

// Pictures of a setting or of a path, each asked of the server once and kept while there is room.

import { decode } from "./pictures.js";
import { MECHANISMS, isWhole } from "./state.js";

const KEPT_BYTES = 96 << 20;

export class Source {
  #kept = new Map(); // oldest first
  #bytes = 0;

  constructor(server, range) {
    this.server = server;
    this.range = range;
  }

  /** The pictures of one setting: classes, sample, seed, truncation. */
  async one(setting, signal) {
    const [pictures] = await this.#get(inputs(setting, 1), signal);
    return pictures;
  }

  /** The pictures of every frame between a setting and its end. */
  path(state, signal) {
    const found = inputs(state, state.frames);
    for (const name of MECHANISMS) {
      const [datatype, values] = found[name];
      const [endType, endValues] = label(state.end[name]);
      found[name] = datatype === endType ? [datatype, [...values, ...endValues]] : [endType, endValues];
    }
    found.end = ["INT64", [whole(state.end.sample)]];
    return this.#get(found, signal);
  }

  async #get(asked, signal) {
    const key = JSON.stringify(asked);
    const kept = this.#kept.get(key);
    if (kept) {
      this.#kept.delete(key);
      this.#kept.set(key, kept);
      return kept;
    }
    const found = decode(await this.server.infer(asked, signal), this.range);
    this.#bytes += size(found);
    this.#kept.set(key, found);
    for (const [oldest, pictures] of this.#kept) {
      if (this.#bytes <= KEPT_BYTES || oldest === key) break;
      this.#bytes -= size(pictures);
      this.#kept.delete(oldest);
    }
    return found;
  }
}

function inputs(setting, count) {
  const found = { count: ["INT64", [whole(String(count))]], seed: ["UINT64", [whole(setting.seed)]] };
  found.start = ["INT64", [whole(setting.sample)]];
  for (const name of MECHANISMS) found[name] = label(setting[name]);
  if (setting.truncation !== null) {
    const factor = Number(setting.truncation);
    found.truncation = ["FP32", [Number.isFinite(factor) ? String(factor) : JSON.stringify(setting.truncation)]];
  }
  return found;
}

/** A class as JSON: digits are an index, any other text is a name, which the server checks. */
function label(text) {
  return isWhole(text) ? ["INT64", [whole(text)]] : ["BYTES", [JSON.stringify(text)]];
}

/** A whole number as JSON, of any size; of anything else the server says what it thinks. */
function whole(text) {
  return isWhole(text) ? BigInt(text).toString() : JSON.stringify(text);
}

function size(pictures) {
  const [first] = pictures;
  return first === undefined ? 0 : pictures.length * 4 * first.composite.data.length;
}

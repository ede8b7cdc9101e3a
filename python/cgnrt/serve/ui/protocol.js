// The Open Inference Protocol, as far as the page speaks it: a model's facts, and images with their parts.

const ARRAYS = { UINT8: Uint8Array, FP32: Float32Array, INT64: BigInt64Array };
const PARTS = ["images", "mask", "foreground", "background"];

/** What the server answered instead, in its words. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export class Server {
  /** @param {string} base address that the protocol's paths follow */
  constructor(base) {
    this.base = base;
    this.token = null; // in memory alone
  }

  /** Name, classes by mechanism, value range of pictures, truncation bounds or null, engine. */
  async model() {
    const [first] = JSON.parse(await (await this.#ask("v2/repository/index", "{}")).text());
    this.path = `v2/models/${encodeURIComponent(first.name)}`;
    const config = JSON.parse(await (await this.#ask(`${this.path}/config`)).text());
    const facts = { name: first.name };
    for (const [name, { string_value: text }] of Object.entries(config.parameters)) {
      facts[name] = JSON.parse(text);
    }
    return facts;
  }

  /**
   * Images and their parts.
   * @param {Object<string, [string, string[]]>} inputs datatype and values in decimal, which may be beyond a double
   * @returns {Promise<Object<string, {shape: number[], data: ArrayLike<number>}>>}
   */
  async infer(inputs, signal) {
    const tensors = Object.entries(inputs).map(
      ([name, [datatype, values]]) =>
        `{"name":"${name}","datatype":"${datatype}","shape":[${values.length}],"data":[${values.join(",")}]}`,
    );
    const outputs = PARTS.map((name) => `{"name":"${name}"}`);
    const body = `{"inputs":[${tensors}],"outputs":[${outputs}],"parameters":{"binary_data_output":true}}`;
    const answer = await this.#ask(`${this.path}/infer`, body, signal);
    const size = Number(answer.headers.get("inference-header-content-length"));
    const bytes = await answer.arrayBuffer();
    const header = JSON.parse(new TextDecoder().decode(bytes.slice(0, size)));
    const found = {};
    let at = size;
    for (const output of header.outputs) {
      const end = at + output.parameters.binary_data_size;
      found[output.name] = { shape: output.shape, data: new ARRAYS[output.datatype](bytes.slice(at, end)) };
      at = end;
    }
    return found;
  }

  async #ask(path, body, signal) {
    const headers = this.token === null ? {} : { authorization: `Bearer ${this.token}` };
    let answer;
    try {
      answer = await fetch(this.base + path, {
        method: body === undefined ? "GET" : "POST",
        body,
        headers,
        signal,
        cache: "no-store",
        credentials: "omit",
      });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ServerError("The server does not answer. Is it running?", 0);
    }
    if (answer.ok) return answer;
    const text = await answer.text();
    throw new ServerError(errorOf(text) ?? `The server answered ${answer.status}.`, answer.status);
  }
}

function errorOf(text) {
  try {
    return JSON.parse(text).error;
  } catch {
    return null;
  }
}

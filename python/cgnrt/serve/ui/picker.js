// A class out of up to thousands: a text field that searches, with a list below it (the combobox pattern of ARIA).

const PAGE = 10; // classes that the page keys go by

export class Picker {
  #names;
  #onPick;
  #value = "0";
  #found = []; // indices in the list
  #active = -1; // place in #found

  /**
   * @param {HTMLElement} parent
   * @param {string} id of the field
   * @param {string} label
   * @param {string[]} names
   * @param {(index: string) => void} onPick
   */
  constructor(parent, id, label, names, onPick) {
    this.#names = names;
    this.#onPick = onPick;
    const root = add(parent, "div", { class: "field picker" });
    add(root, "label", { for: id }).textContent = label;
    const row = add(root, "div", { class: "row" });
    this.input = add(row, "input", {
      id,
      type: "text",
      role: "combobox",
      "aria-autocomplete": "list",
      "aria-expanded": "false",
      "aria-controls": `${id}-list`,
      autocomplete: "off",
      autocapitalize: "none",
      spellcheck: "false",
    });
    this.button = add(row, "button", {
      type: "button",
      class: "icon",
      tabindex: "-1",
      "aria-label": `All classes of ${label.toLowerCase()}`,
    });
    this.button.textContent = "\u25be";
    this.list = add(root, "ul", { id: `${id}-list`, role: "listbox", "aria-label": `Classes of ${label.toLowerCase()}` });
    this.list.hidden = true;

    this.input.addEventListener("focus", () => this.input.select());
    this.input.addEventListener("click", () => this.#open(""));
    this.input.addEventListener("input", () => this.#open(this.input.value));
    this.input.addEventListener("keydown", (event) => this.#key(event));
    this.input.addEventListener("blur", () => this.#close());
    // The field keeps the focus while the list or the button is pressed.
    this.list.addEventListener("pointerdown", (event) => event.preventDefault());
    this.button.addEventListener("pointerdown", (event) => event.preventDefault());
    this.button.addEventListener("click", () => {
      this.input.focus();
      if (this.list.hidden) this.#open("");
      else this.#close();
    });
    this.list.addEventListener("click", (event) => {
      const option = event.target.closest("[role=option]");
      if (option) this.#pick(option.dataset.index);
    });
  }

  get value() {
    return this.#value;
  }

  /** An index in decimal; one without a class is shown as it is. */
  set value(index) {
    this.#value = index;
    if (this.list.hidden) this.input.value = this.#text();
  }

  #text() {
    return this.#names[Number(this.#value)] ?? this.#value;
  }

  #open(query) {
    this.#found = search(this.#names, query);
    const options = document.createDocumentFragment();
    this.#found.forEach((index, place) => {
      const selected = String(index) === this.#value;
      const option = add(options, "li", {
        id: `${this.list.id}-${place}`,
        role: "option",
        "aria-selected": String(selected),
        "data-index": String(index),
      });
      if (this.#names[index] !== String(index)) add(option, "span", { class: "index" }).textContent = index;
      option.append(this.#names[index]);
    });
    if (!this.#found.length) add(options, "li", { class: "nothing" }).textContent = "No class is called so.";
    this.list.replaceChildren(options);
    this.list.hidden = false;
    this.input.setAttribute("aria-expanded", "true");
    const current = this.#found.indexOf(Number(this.#value));
    this.#activate(query === "" ? current : this.#found.length ? 0 : -1);
  }

  #close() {
    this.list.hidden = true;
    this.list.replaceChildren();
    this.#active = -1;
    this.input.setAttribute("aria-expanded", "false");
    this.input.removeAttribute("aria-activedescendant");
    this.input.value = this.#text();
  }

  #pick(index) {
    this.#value = index;
    this.#close();
    this.input.select();
    this.#onPick(index);
  }

  #activate(place) {
    this.list.querySelector(".active")?.classList.remove("active");
    this.#active = place;
    const option = place < 0 ? null : this.list.children[place];
    if (option) {
      option.classList.add("active");
      this.input.setAttribute("aria-activedescendant", option.id);
      // Of the list alone: scrollIntoView would move the page too.
      const { offsetTop: top, offsetHeight: height } = option;
      if (top < this.list.scrollTop) this.list.scrollTop = top;
      const low = top + height - this.list.clientHeight;
      if (low > this.list.scrollTop) this.list.scrollTop = low;
    } else {
      this.input.removeAttribute("aria-activedescendant");
    }
  }

  #key(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: PAGE, PageUp: -PAGE };
    if (event.key in steps) {
      event.preventDefault();
      if (this.list.hidden) this.#open("");
      else if (this.#found.length) {
        const last = this.#found.length - 1;
        const place = this.#active < 0 && steps[event.key] < 0 ? last : this.#active + steps[event.key];
        this.#activate(Math.min(last, Math.max(0, place)));
      }
    } else if (event.key === "Enter" && !this.list.hidden) {
      event.preventDefault();
      if (this.#active >= 0) this.#pick(String(this.#found[this.#active]));
    } else if (event.key === "Escape" && !this.list.hidden) {
      event.preventDefault();
      this.#close();
      this.input.select();
    }
  }
}

/** Indices of the classes that a query may mean: the class of that name, of that number, names that begin so, words, parts. */
export function search(names, query) {
  const wanted = plain(query);
  if (wanted === "") return names.map((_, index) => index);
  const ranked = [[], [], [], [], []];
  names.forEach((name, index) => {
    const text = plain(name);
    if (text === wanted) ranked[0].push(index);
    else if (String(index) === wanted) ranked[1].push(index);
    else if (text.startsWith(wanted)) ranked[2].push(index);
    else if (text.includes(` ${wanted}`)) ranked[3].push(index);
    else if (text.includes(wanted)) ranked[4].push(index);
  });
  return ranked.flat();
}

function plain(text) {
  return text.toLowerCase().replace(/[\s_-]+/g, " ").trim();
}

function add(parent, name, attributes) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

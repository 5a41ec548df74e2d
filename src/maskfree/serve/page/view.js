// A photo with its labels: drawing, and what lies under the pointer.

import { labelMap, mergeSmall, regionsOf, UNLABELED } from "./labels.js";
import { css } from "./colors.js";

// Regions with less of the photo get no word written on them.
const MIN_WRITTEN = 0.015;

export class View {
  constructor(photo, model, { onHover, onPick }) {
    this.photo = photo;
    this.model = model;
    this.grid = null;
    this.point = null;
    this.onHover = onHover;
    this.onPick = onPick;

    this.figure = document.createElement("figure");
    this.canvas = document.createElement("canvas");
    this.canvas.width = photo.width;
    this.canvas.height = photo.height;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label",
      `Labels by ${model}. Arrow keys tell the word at a point, Enter changes its region.`);
    this.tip = document.createElement("div");
    this.tip.className = "tip";
    this.tip.hidden = true;
    const caption = document.createElement("figcaption");
    this.name = document.createElement("span");
    this.name.textContent = model;
    this.told = document.createElement("span");
    caption.append(this.name, this.told);
    this.figure.append(this.canvas, this.tip, caption);
    this.listen();
  }

  listen() {
    const at = (event) => {
      const box = this.canvas.getBoundingClientRect();
      return {
        x: Math.floor(((event.clientX - box.left) / box.width) * this.photo.width),
        y: Math.floor(((event.clientY - box.top) / box.height) * this.photo.height),
      };
    };
    this.canvas.addEventListener("pointermove", (event) => this.look(at(event), false));
    this.canvas.addEventListener("pointerleave", () => this.look(null, false));
    this.canvas.addEventListener("blur", () => this.look(null, false));
    this.canvas.addEventListener("click", (event) => this.pick(at(event)));
    this.canvas.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
      const middle = { x: this.photo.width >> 1, y: this.photo.height >> 1 };
      const point = this.point ?? middle;
      if (steps[event.key]) {
        const step = Math.max(1, Math.round(this.photo.width / (event.shiftKey ? 200 : 40)));
        const [x, y] = steps[event.key];
        this.look({ x: point.x + x * step, y: point.y + y * step }, true);
      } else if (event.key === "Enter" || event.key === " ") {
        this.pick(point);
      } else {
        return;
      }
      event.preventDefault();
    });
  }

  /** Make labels of the scores by the settings of the page; no request is needed. */
  update(settings) {
    if (!this.grid) return;
    const { width, height } = this.photo;
    const classes = this.grid.names.map((_, i) => i).filter((i) => !settings.removed.has(this.grid.words[i]));
    const made = labelMap(this.grid, width, height, classes, settings.threshold(this.grid));
    this.confidence = made.confidence;
    this.labels = mergeSmall(made.labels, width, height, settings.minArea * width * height);
    this.names = settings.namesOf(this.grid);
    for (const edit of this.editable ? settings.edits : []) {
      const label = edit.name === null ? UNLABELED : this.names.indexOf(edit.name);
      for (const place of edit.pixels) this.labels[place] = label;
    }
    Object.assign(this, regionsOf(this.labels, this.confidence, width, height));
  }

  draw(settings) {
    const { width, height, pixels } = this.photo;
    const context = this.canvas.getContext("2d");
    const image = new ImageData(new Uint8ClampedArray(pixels), width, height);
    if (this.grid) this.paint(image.data, settings);
    context.putImageData(image, 0, 0);
    if (this.grid && settings.showNames) this.write(context, settings);
    if (this.point) this.cross(context);
  }

  paint(data, { colors, opacity, hidden }) {
    const { width } = this.photo, background = this.grid.num_words;
    for (let i = 0; i < this.labels.length; i++) {
      const label = this.labels[i];
      if (label === UNLABELED || label === background || hidden.has(this.names[label])) continue;
      const color = colors[label];
      // Borders are darker, so that regions can be told apart without their colors.
      const isBorder = this.labels[i + 1] !== label || this.labels[i + width] !== label;
      const shade = isBorder ? 0.35 : 1, part = isBorder ? Math.max(opacity, 0.6) : opacity;
      for (let c = 0; c < 3; c++) {
        data[4 * i + c] += part * (color[c] * shade - data[4 * i + c]);
      }
    }
  }

  write(context, { hidden }) {
    const { width, height } = this.photo;
    const size = Math.max(11, Math.round(Math.min(width, height) / 24));
    context.font = `600 ${size}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineWidth = size / 5;
    context.lineJoin = "round";
    for (const region of this.regions) {
      const name = this.names[region.label];
      const isSmall = region.size < MIN_WRITTEN * width * height;
      if (isSmall || region.label === this.grid.num_words || hidden.has(name)) continue;
      const half = context.measureText(name).width / 2 + 4;
      const x = Math.min(width - half, Math.max(half, region.x));
      const y = Math.min(height - size, Math.max(size, region.y));
      context.strokeStyle = "#000c";
      context.fillStyle = "#fff";
      context.strokeText(name, x, y);
      context.fillText(name, x, y);
    }
  }

  cross(context) {
    const { x, y } = this.point, reach = Math.max(6, this.photo.width / 60);
    for (const [color, width] of [["#000", 4], ["#fff", 1.5]]) {
      context.strokeStyle = color;
      context.lineWidth = width;
      context.beginPath();
      context.moveTo(x - reach, y);
      context.lineTo(x + reach, y);
      context.moveTo(x, y - reach);
      context.lineTo(x, y + reach);
      context.stroke();
    }
  }

  /** Tell the word and its confidence at a point; null: at none. */
  look(point, byKey) {
    if (!this.grid) return;
    const { width, height } = this.photo;
    if (point) {
      point = {
        x: Math.min(width - 1, Math.max(0, point.x)),
        y: Math.min(height - 1, Math.max(0, point.y)),
      };
    }
    this.point = byKey ? point : null;
    this.tip.hidden = !point;
    if (!point) {
      this.told.textContent = "";
      return this.onHover(this, null);
    }
    const place = point.y * width + point.x, label = this.labels[place];
    const name = label === UNLABELED ? "unlabeled" : this.names[label];
    const text = label === UNLABELED || label === this.grid.num_words
      ? name
      : `${name}, ${Math.round(100 * this.confidence[place])} %`;
    this.tip.textContent = text;
    this.tip.style.left = `${Math.min(88, Math.max(12, (100 * point.x) / width))}%`;
    this.tip.style.top = `${(point.y / height) * this.canvas.clientHeight}px`;
    this.told.textContent = text;
    this.onHover(this, byKey ? text : null);
  }

  pick(point) {
    if (!this.grid || !this.editable) return;
    const place = Math.min(this.photo.height - 1, point.y) * this.photo.width + point.x;
    const region = this.regions.find((each) => each.id === this.owner[place]);
    this.onPick(this, region ?? this.unlabeledAt(place));
  }

  /** The unlabeled region at a pixel, which a person may want to name. */
  unlabeledAt(place) {
    return { id: this.owner[place], label: UNLABELED };
  }

  pixelsOf(region) {
    const pixels = [];
    for (let i = 0; i < this.owner.length; i++) if (this.owner[i] === region.id) pixels.push(i);
    return new Int32Array(pixels);
  }

  /** Fraction of the photo that each label covers. */
  areas() {
    const counts = new Array(256).fill(0);
    for (const label of this.labels) counts[label]++;
    return counts.map((count) => count / this.labels.length);
  }

  swatch(color) {
    const box = document.createElement("span");
    box.className = "swatch";
    if (color) box.style.background = css(color);
    return box;
  }
}

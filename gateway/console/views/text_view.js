// Shows a text that grows: blocks that are whole stay as they are, only the last one changes.

import { h } from "../core/dom.js";
import { t } from "../core/i18n.js";
import { blocksOf, runsOf } from "../state/blocks.js";

export class TextView {
  constructor(className) {
    this.element = h(`div.${className}`);
    this.shown = []; // {key, node, text}
    this.text = null;
    this.settled = 0; // characters of blocks that will not change any more, and how many blocks those are
    this.settledBlocks = 0;
  }

  update(text) {
    if (text === this.text) return;
    if (this.text === null || !text.startsWith(this.text)) this.settled = this.settledBlocks = 0;
    this.text = text;
    const open = blocksOf(text.slice(this.settled));
    open.forEach((block, index) => this.#place(this.settledBlocks + index, block));
    this.#trim(this.settledBlocks + open.length);
    this.#settle(open);
  }

  // A plain paragraph before a blank line is whole: later updates begin after it.
  #settle(open) {
    const cut = this.text.lastIndexOf("\n\n");
    if (cut <= this.settled) return;
    const before = blocksOf(this.text.slice(this.settled, cut));
    const last = before.at(-1);
    const after = blocksOf(this.text.slice(cut));
    if (!last || last.kind === "list" || before.length + after.length !== open.length) return;
    if (JSON.stringify(open[before.length - 1]) !== JSON.stringify(last)) return;
    if (last.kind === "code") return;
    this.settled = cut;
    this.settledBlocks += before.length;
  }

  #place(index, block) {
    const key = JSON.stringify(block);
    const known = this.shown[index];
    if (known?.key === key) return;
    if (known && grow(known, block)) {
      known.key = key;
      return;
    }
    const node = toNode(block);
    if (known) known.node.replaceWith(node);
    else this.element.append(node);
    this.shown[index] = { key, node, block };
  }

  #trim(count) {
    for (const extra of this.shown.splice(count)) extra.node.remove();
  }
}

// Adds to the text node of a paragraph or code that only became longer: selections stay.
function grow(known, block) {
  const before = known.block;
  if (before.kind !== block.kind || before.language !== block.language || !block.text?.startsWith(before.text)) return false;
  const holder = block.kind === "code" ? known.node.querySelector("code") : known.node;
  if (block.kind === "text") {
    const runs = runsOf(block.text);
    if (runs.length !== 1 || runs[0].kind !== "plain") return false;
  } else if (block.kind !== "code") {
    return false;
  }
  const node = holder.firstChild;
  if (holder.childNodes.length !== 1 || node?.nodeType !== Node.TEXT_NODE) return false;
  node.appendData(block.text.slice(before.text.length));
  known.block = block;
  return true;
}

function toNode(block) {
  if (block.kind === "code") return codeBlock(block);
  if (block.kind === "heading") return h(`h${Math.min(6, block.level + 2)}`, null, ...inline(block.text));
  if (block.kind === "list") {
    const items = block.items.map((item) => h("li", null, ...inline(item)));
    return h(block.ordered ? "ol" : "ul", block.start > 1 ? { start: block.start } : null, ...items);
  }
  return h("p", null, ...inline(block.text));
}

function codeBlock(block) {
  const code = h("code", null, block.text);
  const copy = h("button.copy", {
    type: "button",
    onclick: () => navigator.clipboard?.writeText(code.textContent).then(() => (copy.textContent = t("copied"))),
  });
  copy.textContent = t("copy");
  return h("div.code", null, h("div.code-head", null, h("span", null, block.language), copy), h("pre", { tabindex: "0" }, code));
}

function inline(text) {
  return runsOf(text).map((run) => {
    if (run.kind === "code") return h("code", null, run.text);
    if (run.kind === "strong") return h("strong", null, run.text);
    if (run.kind === "link") return h("a", { href: run.text, target: "_blank", rel: "noopener noreferrer" }, run.text);
    return run.text;
  });
}

// A small part of Markdown -> blocks of plain data. Nothing here makes HTML: views turn blocks into text nodes.
//
//   {kind: "text" | "heading" | "list" | "code", ...}; inline runs are {kind: "plain" | "code" | "strong" | "link", text}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([\w+#.-]*)/;
const HEADING = /^(#{1,4})\s+(.+)$/;
const ITEM = /^\s{0,6}(?:[-*+]|\d{1,4}[.)])\s+(.*)$/;
const NUMBERED = /^\s{0,6}(\d{1,4})[.)]/;
const INLINE = /(`[^`\n]+`)|(\*\*[^*\n]+\*\*)|(https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]}。，；：！？）】」])/g;

// Blocks of a text that may still grow: an unclosed fence is a code block.
export function blocksOf(text) {
  const blocks = [];
  let lines = [];
  let fence = null;
  const flush = () => {
    const body = lines.join("\n").replace(/^\n+|\s+$/g, "");
    if (body) blocks.push({ kind: "text", text: body });
    lines = [];
  };
  for (const line of text.split("\n")) {
    if (fence) {
      if (line.trim().startsWith(fence.mark) && !line.trim().replaceAll(fence.mark[0], "")) fence = null;
      else fence.block.text += line + "\n";
      continue;
    }
    const opening = FENCE.exec(line);
    if (opening) {
      flush();
      fence = { mark: opening[1], block: { kind: "code", language: opening[2], text: "" } };
      blocks.push(fence.block);
    } else if (HEADING.test(line)) {
      flush();
      const [, marks, title] = HEADING.exec(line);
      blocks.push({ kind: "heading", level: marks.length, text: title });
    } else if (ITEM.test(line) && (lines.length === 0 || blocks.at(-1)?.kind === "list")) {
      flush();
      addItem(blocks, line);
    } else if (line.trim() === "") {
      flush();
    } else {
      lines.push(line);
    }
  }
  flush();
  return blocks;
}

function addItem(blocks, line) {
  const number = NUMBERED.exec(line);
  const ordered = number !== null;
  const item = ITEM.exec(line)[1];
  const last = blocks.at(-1);
  if (last?.kind === "list" && last.ordered === ordered) last.items.push(item);
  else blocks.push({ kind: "list", ordered, start: ordered ? Number(number[1]) : 1, items: [item] });
}

// Runs of a paragraph: code, strong and links are found, everything else is plain.
export function runsOf(text) {
  const runs = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > end) runs.push({ kind: "plain", text: text.slice(end, match.index) });
    if (match[1]) runs.push({ kind: "code", text: match[1].slice(1, -1) });
    else if (match[2]) runs.push({ kind: "strong", text: match[2].slice(2, -2) });
    else runs.push({ kind: "link", text: match[3] });
    end = match.index + match[0].length;
  }
  if (end < text.length) runs.push({ kind: "plain", text: text.slice(end) });
  return runs;
}

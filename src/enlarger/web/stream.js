// Server-sent events over fetch: EventSource can send no key.

const SILENCE_MS = 40_000; // the server says at least "I am alive" every 15 s

// Yields { event, data } with `data` read from its JSON; returns when the server closes the stream. Throws when it
// breaks or falls silent.
export async function* eventsOf(answer, controller) {
  if (answer.status === 204 || !answer.body) return;
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  let timer = 0;
  const wait = () => { clearTimeout(timer); timer = setTimeout(() => controller.abort(), SILENCE_MS); };
  try {
    for (;;) {
      wait();
      const { done, value } = await reader.read();
      if (done) return;
      buffer += value;
      const blocks = buffer.split(/\r?\n\r?\n/);
      buffer = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } finally {
    clearTimeout(timer);
    reader.cancel().catch(() => {});
  }
}

// One block of lines; null for a comment.
export function parsed(block) {
  const fields = { event: "message", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
    if (name === "data") fields.data.push(value);
    else if (name === "event") fields.event = value;
  }
  return fields.data.length ? { event: fields.event, data: JSON.parse(fields.data.join("\n")) } : null;
}

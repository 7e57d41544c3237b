/** Idempotency keys: made, written into a header, and read from one. */

/** The longest key, in bytes. */
export const KEY_BYTES_MAX = 255;

/** A key that nobody else has: random, 128 bits. Make it once for each intended effect. */
export function newKey(): string {
  return crypto.randomUUID();
}

/** What is wrong with `key`, in words; nothing where it can be one. */
function wrongWith(key: string): string | undefined {
  if (key.length === 0) return "it is empty";
  if (key.length > KEY_BYTES_MAX) return `it is longer than ${KEY_BYTES_MAX} bytes`;
  if (!/^[!-~]([ -~]*[!-~])?$/.test(key)) return "it has other than visible letters of ASCII";
  return undefined;
}

/** `key` as a header carries it: bare, or quoted where bare it would be read as something else. */
export function keyField(key: string): string {
  const wrong = wrongWith(key);
  if (wrong) throw new TypeError(`the idempotency key cannot be used: ${wrong}`);
  return /[",\\ ]/.test(key) ? `"${key.replace(/[\\"]/g, "\\$&")}"` : key;
}

/** The key that a header carries, or nothing where it is malformed: `"abc"` and `abc` are one key. */
export function readKey(field: string): string | undefined {
  const text = field.replace(/^[ \t]+|[ \t]+$/g, "");
  let key = text;
  if (text.startsWith('"')) {
    const quoted = /^"((?:[^"\\]|\\["\\])*)"[ \t]*(?:;.*)?$/.exec(text);
    if (!quoted) return undefined;
    key = (quoted[1] ?? "").replace(/\\(["\\])/g, "$1");
  } else if (/[",\\ \t]/.test(text)) {
    return undefined;
  }
  return wrongWith(key) ? undefined : key;
}

/** Whether a call by this method has no effect, so that it needs no key. */
export function isSafe(method: string): boolean {
  return ["GET", "HEAD", "OPTIONS", "TRACE"].includes(method.toUpperCase());
}
